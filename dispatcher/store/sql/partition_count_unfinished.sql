-- How many deliveries of days before one still wait, by day.
--
-- Parameters: $1 the day (not included). Index: none, it reads the open deliveries whole, when a day comes of age.
-- Locks: none.
SELECT day, count(*) AS unfinished FROM dispatcher.delivery_open WHERE day < $1 GROUP BY day
