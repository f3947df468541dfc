package events_test

import (
	"fmt"
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

func TestJobsThatFailTogetherComeAgainOneAfterTheOther(t *testing.T) {
	retry := events.Transient.Retry()
	plain, _ := retry.Pause(2)
	pauses := map[time.Duration]bool{}
	for i := range 1000 {
		job := fmt.Sprint("job", i)
		pause, ok := retry.PauseFor(2, job)
		if again, _ := retry.PauseFor(2, job); !ok || pause != again {
			t.Fatalf("%s waits %s and then %s, %v", job, pause, again, ok)
		}
		if pause < plain*4/5 || pause > plain*6/5 {
			t.Fatalf("%s waits %s, the class says %s", job, pause, plain)
		}
		pauses[pause] = true
	}
	if len(pauses) < 990 {
		t.Errorf("1000 jobs have %d different pauses", len(pauses))
	}
	if pause, ok := retry.PauseFor(retry.Attempts, "job"); ok || pause != 0 {
		t.Errorf("after the last attempt there is another in %s", pause)
	}
}
