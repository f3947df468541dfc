package report

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
)

// tellNotices publishes what was done with accounts, in order, each until it is stored.
func (r *Reporter) tellNotices(ctx context.Context) error {
	for {
		notices, err := r.Journal.Notices(window)
		if err != nil || len(notices) == 0 {
			return err
		}
		if !r.Bus.Conn().IsConnected() {
			return errAway
		}
		for _, n := range notices {
			if err := r.tellNotice(ctx, n); err != nil {
				return err
			}
			if err := r.Journal.Told(n.Sequence); err != nil {
				return err
			}
		}
	}
}

var errAway = errors.New("the broker is away")

func (r *Reporter) tellNotice(ctx context.Context, n journal.Notice) error {
	err := r.publishNotice(ctx, n)
	if err != nil && hopeless(err) {
		r.Metrics.unpublishable.Inc()
		r.Log.ErrorContext(ctx, "notice can never be published and is given up", "type", n.Type, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish notice: %w", err)
	}
	return nil
}

func (r *Reporter) publishNotice(ctx context.Context, n journal.Notice) (err error) {
	t, ok := events.AccountNoteType(n.Type)
	switch {
	case ok:
		_, err = bus.Publish(ctx, r.Bus, t, events.Event[events.AccountNote]{ID: n.Note.ID(t.Name), Subject: r.Agent, Time: n.Note.At, Data: n.Note})
	case n.Type == events.CredentialUsed.Name && n.Use != nil:
		_, err = bus.Publish(ctx, r.Bus, events.CredentialUsed, events.Event[events.LeaseUse]{ID: n.Use.ID(), Subject: r.Agent, Time: n.Use.At, Data: *n.Use})
	default:
		r.Metrics.unpublishable.Inc()
		r.Log.ErrorContext(ctx, "notice can never be published and is given up", "type", n.Type)
	}
	return err
}
