"""The test kit: generated event streams, fuzzed records, servers for tests. Used by the tests of every member."""
