// Package daemon is what every long-running process of Chandler shares: one strict configuration file,
// a logger, a metrics registry, /metrics and /healthz, the connection to the broker, and running several
// parts until a signal or the first of them ends.
//
// Under failure: a configuration that is not fully understood stops the program before anything starts. A
// broker that is away, at the start or later, stops nothing: the connection is tried again for ever and
// /healthz says so. When a part ends, all others are told to stop and get one grace period; what has not
// stopped by then is named in the error, and the process ends without it.
package daemon
