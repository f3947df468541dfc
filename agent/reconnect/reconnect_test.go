package reconnect

import (
	"testing"
	"time"
)

func TestPausesAreDrawnFromARangeThatDoublesUpToTheMost(t *testing.T) {
	for attempt, widest := range map[int]time.Duration{0: least, 1: least, 2: 2 * least, 4: 8 * least, 5: time.Minute, 1 << 20: time.Minute} {
		var longest time.Duration
		for range 1000 {
			pause := Pause(attempt, time.Minute)
			if pause < 0 || pause > widest {
				t.Fatalf("before attempt %d it pauses %s, at most %s is wanted", attempt, pause, widest)
			}
			longest = max(longest, pause)
		}
		if longest < widest/2 {
			t.Errorf("before attempt %d it pauses %s at most: nobody comes later", attempt, longest)
		}
	}
	if Pause(1, 0) != 0 {
		t.Error("without a pause it pauses")
	}
}
