package bus_test

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestARequestCarriesItsTrace(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("execution"))
	serve(t, b, "execution", bus.Answer(events.ExecutionOrder, func(ctx context.Context, _ string, _ events.OrderRequest) (events.OrderAnswer, error) {
		return events.OrderAnswer{Envelope: []byte(bus.Trace(ctx))}, nil
	}), bus.Answer(events.ExecutionProgress, func(ctx context.Context, _ string, _ events.Named) (events.Progress, error) {
		return events.Progress{Deployment: bus.Trace(ctx)}, nil
	}))
	client := eventstest.Bus(t, srv, "")
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, test := range map[string]struct{ given, want string }{
		"a traceparent":     {trace, trace},
		"none":              {"", ""},
		"of another form":   {"hello", ""},
		"with another line": {trace + "\r\nNats-Stream: x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := bus.WithTrace(t.Context(), test.given)
			// Agents and administrators ask in different ways.
			order, err := bus.Request(ctx, client, agent, events.ExecutionOrder, events.OrderRequest{})
			if err != nil || string(order.Envelope) != test.want {
				t.Errorf("an agent's request has the trace %q, %v", order.Envelope, err)
			}
			progress, err := bus.Request(ctx, client, "admin", events.ExecutionProgress, events.Named{})
			if err != nil || progress.Deployment != test.want {
				t.Errorf("an administrator's request has the trace %q, %v", progress.Deployment, err)
			}
		})
	}
}

func TestARequestOfAStrangerWithABadTraceIsAnswered(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("execution"))
	serve(t, b, "execution", bus.Answer(events.ExecutionProgress, func(ctx context.Context, _ string, _ events.Named) (events.Progress, error) {
		return events.Progress{Deployment: "trace " + bus.Trace(ctx)}, nil
	}))
	m := &nats.Msg{Subject: events.ExecutionProgress.Subject(events.NoKey, "admin"), Data: []byte(`{}`), Header: nats.Header{"traceparent": {"x"}}}
	answer, err := eventstest.Connect(t, srv).RequestMsgWithContext(t.Context(), m)
	if err != nil || !strings.Contains(string(answer.Data), `"deployment":"trace "`) {
		t.Errorf("%v, %v", answer, err)
	}
}
