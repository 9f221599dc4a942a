-- The acknowledged edits that some replica does not show, first 1000.
SELECT * FROM lost_edits ORDER BY edit LIMIT 1000;
