// Package eventstest gives tests the real broker in process, and words to say what events they expect.
//
// Everything it makes ends with the test. A broker keeps its files in the test's own directory and listens
// on a loopback port of its own, so that tests may run side by side, and may be stopped and started again
// on the same files. A secure broker has the accounts, permissions and users of a real fleet. Nothing here
// is for production.
package eventstest
