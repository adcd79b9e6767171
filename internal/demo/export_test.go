package demo

// RunAt is Run at another pace: a test cannot wait for two minutes.
var RunAt = run
