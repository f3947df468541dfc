package timing

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chandler/events/calendar"
	"chandler/events/order"
)

var t0 = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func hour(h int) time.Time { return t0.Add(time.Duration(h) * time.Hour) }

func moment(h int) *calendar.Moment { return new(calendar.At(hour(h))) }

func TestWhenAJobStarts(t *testing.T) {
	asap, atFour := order.Assignment{ASAP: true}, order.Assignment{At: moment(4)}
	for name, c := range map[string]struct {
		available, expires *calendar.Moment
		assignment         order.Assignment
		now                time.Time
		want               Decision
	}{
		"as soon as possible is now":                     {nil, nil, asap, hour(0), Decision{Verdict: Start}},
		"before it is available nothing happens":         {moment(2), nil, asap, hour(1), Decision{NotYet, hour(2)}},
		"the moment it is available it starts":           {moment(2), nil, asap, hour(2), Decision{Verdict: Start}},
		"before its deadline content is fetched":         {nil, nil, atFour, hour(3), Decision{Prepare, hour(4)}},
		"at its deadline it starts":                      {nil, nil, atFour, hour(4), Decision{Verdict: Start}},
		"a machine that missed the deadline starts late": {nil, moment(9), atFour, hour(8), Decision{Verdict: Start}},
		"a machine that missed the expiry does not":      {nil, moment(9), atFour, hour(9), Decision{Verdict: TooLate}},
		"an order past its validity does not start":      {nil, nil, asap, hour(101), Decision{Verdict: TooLate}},
	} {
		t.Run(name, func(t *testing.T) {
			o := order.Order{Available: c.available, Expires: c.expires, NotAfter: hour(100)}
			if got := Decide(o, c.assignment, c.assignment.Occurrence(), Machine{ID: "agent0001"}, hour(0), c.now); got != c.want {
				t.Fatalf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestRerunByLastResult(t *testing.T) {
	for _, c := range []struct {
		rerun order.Rerun
		want  [3]bool // never ran, succeeded, failed
	}{
		{order.RerunNever, [3]bool{true, false, false}},
		{order.RerunAlways, [3]bool{true, true, true}},
		{order.RerunIfFailed, [3]bool{true, false, true}},
		{order.RerunIfSucceeded, [3]bool{true, true, false}},
	} {
		for last, want := range c.want {
			if got := RunsAgain(c.rerun, Last(last)); got != want {
				t.Errorf("rerun %s, last %d: got %v, want %v", c.rerun, last, got, want)
			}
		}
	}
}

func TestPlacesAreEvenAndFixed(t *testing.T) {
	below := 0
	for i := range 10_000 {
		if Place("d", fmt.Sprintf("agent%05d", i)) < 0.1 {
			below++
		}
	}
	if below < 900 || below > 1100 {
		t.Fatalf("%d of 10,000 agents lie in the first tenth", below)
	}
	rapid.Check(t, func(t *rapid.T) {
		d, a := rapid.String().Draw(t, "deployment"), rapid.String().Draw(t, "agent")
		if p := Place(d, a); p < 0 || p >= 1 || p != Place(d, a) {
			t.Fatalf("place %v", p)
		}
	})
}
