package events_test

import (
	"testing"
	"time"

	"chandler/events"
)

func TestEveryReasonHasAClassAndAdvice(t *testing.T) {
	for _, r := range events.Reasons() {
		info := r.Info()
		if info.Advice == "" || info.Class == "" {
			t.Errorf("reason %s has class %q and advice %q", r, info.Class, info.Advice)
		}
		if err := events.ValidToken(string(r)); err != nil {
			t.Errorf("reason %s cannot be a label: %v", r, err)
		}
	}
	if events.Reason("from_the_future").Known() || events.Reason("from_the_future").Info().Class != events.Permanent {
		t.Error("an unknown reason must be treated as one that is not tried again")
	}
}

func TestPausesBetweenAttemptsGrowToTheirLimitAndEnd(t *testing.T) {
	for name, c := range map[string]struct {
		class   events.Class
		attempt int
		pause   time.Duration
		ok      bool
	}{
		"a permanent failure is not tried again":            {events.Permanent, 1, 0, false},
		"a passing failure is tried again after a minute":   {events.Transient, 1, time.Minute, true},
		"then after longer":                                 {events.Transient, 3, 16 * time.Minute, true},
		"never longer than an hour":                         {events.Transient, 4, time.Hour, true},
		"and not for ever":                                  {events.Transient, 5, 0, false},
		"a busy installer is asked every two hours":         {events.Busy, 10, 2 * time.Hour, true},
		"ten times, as in the original (domain-facts §3.2)": {events.Busy, 11, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if pause, ok := c.class.Retry().Pause(c.attempt); pause != c.pause || ok != c.ok {
				t.Fatalf("got %s, %v; want %s, %v", pause, ok, c.pause, c.ok)
			}
		})
	}
}

func TestNamesThatMustNotReachASubjectAreRefused(t *testing.T) {
	for _, bad := range []string{"", "a.b", "*", ">", "a b", "A", "ä", "-a", "a\x00", "a/b", string(make([]byte, 65))} {
		if events.ValidToken(bad) == nil {
			t.Errorf("token %q was taken", bad)
		}
		if events.ValidAgent(bad) == nil {
			t.Errorf("agent id %q was taken", bad)
		}
	}
	if err := events.ValidAgent(events.AgentID([]byte("key"))); err != nil {
		t.Error(err)
	}
}
