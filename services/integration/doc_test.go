// Package integration tells Chandler's stories as tests: all services and real agents on a real broker,
// programs that really run, and what must be true afterwards whatever was killed on the way.
//
// Agents are processes of their own (this test binary again), so that they can be killed. What a program
// did is read from the files it wrote, not from what Chandler says about it.
package integration
