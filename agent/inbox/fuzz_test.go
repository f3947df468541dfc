package inbox

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

// FuzzMessage hands the inbox whatever bytes and headers somebody may put on its subject: it takes nothing
// that does not name this agent, and never fails in another way than by refusing.
func FuzzMessage(f *testing.F) {
	f.Add("dev.chandler.job.offered.v1", "/services/execution", `{"format":1,"agent":"agent0001","job":"j","deployment":"d","revision":1,"order":"x","attempt":1}`)
	f.Add("dev.chandler.job.cancel_requested.v1", "/services/execution", `{"agent":"agent0001","deployment":"d","revision":1}`)
	f.Add("", "", "not an event")
	f.Fuzz(func(t *testing.T, kind, source, data string) {
		r := &receiver{got: make(chan string, 1)}
		in := &Inbox{Options: Options{Agent: me, Receiver: r, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler)}}
		m := &nats.Msg{Subject: events.OfferRepublished(me), Data: []byte(data), Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {"x"}, "ce-type": {kind}, "ce-source": {source}, "ce-datacontenttype": {"application/json"}}}
		err := in.passOver(t.Context(), in.take(t.Context(), m))
		if err != nil {
			t.Fatalf("not refused: %v", err)
		}
		if len(r.got) > 0 && source != "/services/execution" {
			t.Fatalf("taken from %q", source)
		}
	})
}
