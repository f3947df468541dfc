package execution

import (
	"math"
	"testing"
	"time"

	"chandler/events"
)

func TestHowLongAnAgentMaySayNothingDependsOnTheState(t *testing.T) {
	s := &Service{silence: 4 * time.Hour}
	for state, want := range map[events.State]time.Duration{
		events.Offered: 4 * time.Hour, events.Downloading: 4 * time.Hour, events.Running: 16 * time.Hour,
		events.Waiting: math.MaxInt64, events.Retrying: math.MaxInt64, events.RebootPending: math.MaxInt64,
	} {
		if got := s.patience(&known{}, job{state: state}); got != want {
			t.Errorf("%s: %s, want %s", state, got, want)
		}
	}
}
