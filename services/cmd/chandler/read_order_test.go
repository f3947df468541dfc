package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStreamsAreMergedInTheOrderOfTime(t *testing.T) {
	source := func(seconds ...int) <-chan stored {
		c := make(chan stored, len(seconds))
		for _, s := range seconds {
			c <- stored{at: testNow.Add(time.Duration(s) * time.Second)}
		}
		close(c)
		return c
	}
	var got []int
	note := func(m stored) error { got = append(got, int(m.at.Sub(testNow).Seconds())); return nil }
	if err := merge([]<-chan stored{source(1, 4, 5), source(), source(2, 3, 6)}, note); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6}, got); diff != "" {
		t.Error(diff)
	}
	broken := errors.New("broken pipe")
	if err := merge([]<-chan stored{source(1, 2)}, func(stored) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
