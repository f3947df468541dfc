package execution

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events/bus"
)

func TestTheLagOfALostPartitionIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lag{gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "lag"})}
		want := func(when string, lag float64) {
			t.Helper()
			synctest.Wait()
			if got := testutil.ToFloat64(l.gauge); got != lag {
				t.Errorf("%s the lag is %v, want %v", when, got, lag)
			}
		}
		l.show(500)
		time.Sleep(bus.PinnedTTL - time.Second)
		l.show(300)
		time.Sleep(bus.PinnedTTL - time.Second)
		want("while batches come", 300)
		time.Sleep(2 * time.Second)
		want("after the pin was lost", 0)
		l.show(200)
		want("with the pin again", 200)
		l.end()
		want("after the reader stopped", 0)
		time.Sleep(2 * bus.PinnedTTL)
		want("long after that", 0)
	})
}
