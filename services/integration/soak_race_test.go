//go:build race

package integration

// raceDetector is whether this program looks for races, which makes it several times slower.
const raceDetector = true
