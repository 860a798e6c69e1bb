-- Whose the database is. Who creates the view first has it: that is one step, whoever else tries. Run at every start,
-- before anything else; this file has no version.
CREATE DATABASE IF NOT EXISTS ${database};

CREATE VIEW IF NOT EXISTS ${database}.held_by AS SELECT '${holder}' AS instance;
