package enrol

import (
	"errors"
	"testing"
	"time"

	"chandler/events"
)

func TestAnIdentitysLifeByClocksThatDiffer(t *testing.T) {
	const day = 24 * time.Hour
	real := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	given := func(own time.Duration) lifetime {
		return lifetime{issued: real, expires: real.Add(day), received: real.Add(own)}
	}
	for name, c := range map[string]struct {
		life    lifetime
		now     time.Duration // by the machine's clock, since real
		due     time.Duration // after half of its life
		expired bool
	}{
		"a clock that is right, at once":           {given(0), 0, day / 2, false},
		"a clock that is right, just before":       {given(0), day - 1, day / 2, false},
		"a clock that is right, at the end":        {given(0), day, day / 2, true},
		"a clock a year ahead, at once":            {given(365 * day), 365 * day, 365*day + day/2, false},
		"a clock a year ahead, at the end":         {given(365 * day), 366 * day, 365*day + day/2, true},
		"a clock a year behind, at the end":        {given(-365 * day), -364 * day, -365*day + day/2, false}, // the broker will tell
		"a clock that was a year ahead and is set": {given(365 * day), day / 4, day / 2, false},
		"the same, when it has expired":            {given(365 * day), 2 * day, day / 2, true},
		"a clock that was behind and is set":       {given(-365 * day), day / 4, -365*day + day/2, false},
		"issued by a service whose clock runs ahead of the encoder's": {
			lifetime{issued: real, expires: real.Add(22 * day), received: real.Add(21 * day)}, 21*day + day/2, 21*day + day/2, false},
		"the same at its end": {lifetime{issued: real, expires: real.Add(22 * day), received: real.Add(21 * day)}, 22 * day, 21*day + day/2, true},
		"issued by a service whose clock runs behind the encoder's": {
			lifetime{issued: real, expires: real.Add(-9 * day), received: real.Add(-10 * day)}, -9 * day, -10*day + day/2, true},
	} {
		t.Run(name, func(t *testing.T) {
			now := real.Add(c.now)
			if got := c.life.expired(now); got != c.expired {
				t.Errorf("expired: %v, want %v", got, c.expired)
			}
			if at, ever := c.life.due(now, 0.5); !ever || !at.Equal(real.Add(c.due)) {
				t.Errorf("due at %v (%v), want %v", at, ever, real.Add(c.due))
			}
		})
	}
	for name, l := range map[string]lifetime{"no end": {issued: real, received: real}, "an end that no clock explains": {issued: real, expires: real.Add(-day), received: real}} {
		if _, ever := l.due(real.Add(1000*day), 0.5); ever || l.expired(real.Add(1000*day)) {
			t.Errorf("%s: it is renewed or counts as expired", name)
		}
	}
}

func TestPausesGrowAreDrawnAndEnd(t *testing.T) {
	now := time.Now()
	refused := func(r events.EnrolRefusal, later time.Duration) error { return &RefusedError{Refused: r, Later: later} }
	away := errors.New("no broker")
	for name, c := range map[string]struct {
		errs        []error
		random      float64
		least, most time.Duration
	}{
		"nobody answers, once":                {[]error{away}, 1, 5 * time.Second, 6 * time.Second},
		"nobody answers, and chance has it":   {[]error{away, away, away}, 0, pauseLeast, pauseLeast},
		"nobody answers, thrice":              {[]error{away, away, away}, 1, 20 * time.Second, 21 * time.Second},
		"nobody answers, many times":          {many(away, 100), 1, 10 * time.Minute, 11 * time.Minute},
		"approval is awaited for long":        {many(refused(events.RefusedPending, 0), 100), 1, 5 * time.Minute, 6 * time.Minute},
		"the key is revoked":                  {[]error{refused(events.RefusedRevoked, 0)}, 0, time.Hour, time.Hour},
		"the key is revoked, with chance":     {many(refused(events.RefusedRevoked, 0), 100), 1, time.Hour, 70 * time.Minute},
		"the service says later":              {[]error{refused(events.RefusedLater, time.Minute)}, 0.5, 90 * time.Second, 90 * time.Second},
		"the service says much later":         {[]error{refused(events.RefusedLater, 1e6*time.Hour)}, 0, time.Hour, time.Hour},
		"the service is not set up, for long": {many(refused(events.RefusedNotSetUp, 0), 100), 1, 10 * time.Minute, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var p pause
			for _, err := range c.errs {
				p.after(err, now, c.random)
			}
			got := p.until.Sub(now)
			if got < c.least || got > c.most {
				t.Errorf("waits %v, want %v to %v", got, c.least, c.most)
			}
			if p.over(now.Add(got-1)) || !p.over(now.Add(got)) {
				t.Error("it ends at another time")
			}
		})
	}
}

func many(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
