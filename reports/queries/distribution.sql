-- One latency ($metric, such as delivery_ms) in the run, each phase and each worker: exact
-- percentiles of the pooled samples. `count` is weighted, `samples` the rows it rests on.
SELECT * FROM distribution_of($metric) ORDER BY scope, phase, worker;
