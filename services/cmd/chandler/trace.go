package main

import (
	"crypto/rand"
	"encoding/hex"
)

// newTrace begins a trace: a W3C traceparent (version 00, sampled), which every event that follows from a
// request carries on.
func newTrace() string {
	id := make([]byte, 16+8)
	_, _ = rand.Read(id) // never fails
	id[0] |= 1           // all zeros are no trace,
	id[16] |= 1          // nor no span
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-01"
}
