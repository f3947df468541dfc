package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func obedient(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunEndsCleanlyWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		if err := Run(ctx, RunOptions{Log: quiet()}, Part{"a", obedient}, Part{"b", obedient}); err != nil {
			t.Error(err)
		}
	})
}

func TestRunStopsEverythingWhenOnePartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := false
		err := Run(t.Context(), RunOptions{Log: quiet()},
			Part{"fails", func(context.Context) error { return errors.New("disk full") }},
			Part{"obeys", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // virtual time: takes a while to stop, within the grace period
				stopped = true
				return nil
			}})
		if err == nil || err.Error() != "fails: disk full" || !stopped {
			t.Errorf("error %v, the other part stopped: %v", err, stopped)
		}
	})
}

func TestRunEndsWhenAPartEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := Run(t.Context(), RunOptions{Log: quiet()}, Part{"done", func(context.Context) error { return nil }}, Part{"obeys", obedient}); err != nil {
			t.Error(err)
		}
	})
}

func TestRunNamesWhatDoesNotStopWithinTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		err := Run(ctx, RunOptions{Log: quiet(), Grace: 3 * time.Second}, Part{"obeys", obedient},
			Part{"deaf", func(context.Context) error { <-release; return nil }})
		if err == nil || !strings.Contains(err.Error(), "deaf") || strings.Contains(err.Error(), "obeys") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("waited %s", took)
		}
		close(release)
	})
}

func TestLoggerRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []LogConfig{{Level: "loud"}, {Format: "xml"}} {
		if _, err := NewLogger(new(bytes.Buffer), c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	var out bytes.Buffer
	log, err := NewLogger(&out, LogConfig{Level: "warn", Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.Warn("shown", "component", "test")
	if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, `"component":"test"`) {
		t.Errorf("logged %q", got)
	}
}
