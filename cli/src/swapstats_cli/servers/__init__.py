"""The embedded servers: how each is started, asked whether it serves, and run as a container's process.

Importing this takes nothing but the standard library, so that Kafka's jars can be fetched before anything is installed.
"""
