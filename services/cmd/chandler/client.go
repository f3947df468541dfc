package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

// client is a connection to a fleet, as one command uses it.
type client struct {
	connection
	bus      *bus.Bus
	timeout  time.Duration // for each answer
	role     access.Role   // of the user; empty on a broker that asks for none
	key      string        // public, of the user; empty likewise
	refusals *refusals
}

// connected runs a command with a connection in the current context.
func (a *app) connected(do func(cmd *cobra.Command, c *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		where, err := a.current()
		if err != nil {
			return err
		}
		c, err := dial(where, a.timeout)
		if err != nil {
			return err
		}
		defer c.bus.Conn().Close()
		return do(cmd, c, args)
	}
}

// dial connects as the user of the context's credentials.
func dial(where connection, timeout time.Duration) (*client, error) {
	user := fileUser{name: where.Caller}
	if where.Credentials != "" {
		var err error
		if user, err = readUser(where.Credentials); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("credentials of context %s: %w; if they were moved: `chandler context add %s --credentials FILE`, or --administrator DIR where the administrator's directory went", where.Name, err, where.Name)
		} else if err != nil {
			return nil, fmt.Errorf("context %s: %w", where.Name, err)
		}
		where.Caller = user.name
	}
	c := &client{connection: where, timeout: timeout, role: user.role, key: user.key, refusals: newRefusals()}
	options := []nats.Option{nats.Name("chandler " + user.name), nats.CustomInboxPrefix("_INBOX." + user.name), nats.Timeout(timeout), nats.MaxReconnects(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.refusals.hear(err) })}
	if user.jwt != "" {
		options = append(options, nats.UserJWTAndSeed(user.jwt, string(user.seed)))
	}
	trusted, err := trustCertificate(where.CA)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", where.Name, err)
	}
	if trusted != nil {
		options = append(options, nats.Secure(trusted))
	}
	nc, err := nats.Connect(where.Server, options...)
	if err != nil {
		return nil, explainDial(where, err)
	}
	if c.bus, err = bus.New(bus.Options{Conn: nc, Key: user.key}); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// explainDial says what to do where a broker cannot be reached, or does not let this user in.
func explainDial(where connection, err error) error {
	at := fmt.Sprintf("the broker at %s (context %s)", where.Server, where.Name)
	unknown, authority := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case refusedUser(err) && where.Credentials == "":
		return fmt.Errorf("%s asks who you are, and the context names no credentials: `chandler context add %s --credentials FILE` (`chandler user add` makes such a file): %w", at, where.Name, err)
	case refusedUser(err):
		return fmt.Errorf("%s does not let %s in: the credentials %s were revoked, have expired, or belong to another fleet: %w", at, where.Caller, where.Credentials, err)
	case authority:
		return fmt.Errorf("%s has a certificate of an authority that is not known here: `chandler context add %s --ca FILE` names it, DATA/tls/ca.pem where `chandler up --tls` runs: %w", at, where.Name, unknown)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%s speaks clear text, and the context names an authority for certificates: start it with --tls, or `chandler context add %s --ca ''`: %w", at, where.Name, err)
	}
	return fmt.Errorf("connect to %s: %w; is it running? `chandler up` starts one, `chandler context ls` shows others", at, err)
}

// ask makes one request. The error says which service did not answer, what it answered, or that the broker
// does not let this user ask.
func ask[Req, Resp any](ctx context.Context, c *client, call events.Call[Req, Resp], req Req) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ctx, stop := c.refusals.watch(ctx, events.Prefix+"rpc."+call.Service+"."+call.Verb+".")
	defer stop()
	resp, err := bus.Request(ctx, c.bus, c.Caller, call, req)
	if refused, ok := errors.AsType[*notAllowed](context.Cause(ctx)); ok && err != nil {
		return resp, fmt.Errorf("the broker refuses %s.%s: %w", call.Service, call.Verb, refused.in(c))
	}
	if refused, ok := errors.AsType[*bus.RequestError](err); ok {
		return resp, refused // the service's own words
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		err = fmt.Errorf("the %s service did not answer within %s: it may have done what was asked; look with `chandler doctor`, or wait longer with --timeout", call.Service, c.timeout)
	}
	return resp, err
}

// reading is what to read of a stream.
type reading struct {
	stream  string
	filters []string
	since   time.Time // zero: from the first
	onlyNew bool      // instead: only what is stored from now on, by the broker's clock
	follow  bool      // go on with what is stored later, until ctx is done
}

// read gives each message that matches, oldest first. It leaves nothing behind on the broker.
func (c *client) read(ctx context.Context, r reading, each func(jetstream.Msg) error) error {
	o := bus.BrowseOptions{Stream: r.stream, Filters: r.filters, Since: r.since, OnlyNew: r.onlyNew, Follow: r.follow}
	if !r.follow {
		o.Patience = c.timeout
	}
	ctx, stop := c.refusals.watch(ctx, "$JS.API.DIRECT.GET."+r.stream)
	defer stop()
	err := c.bus.Browse(ctx, o, each)
	if refused, ok := errors.AsType[*notAllowed](context.Cause(ctx)); ok {
		return fmt.Errorf("the broker refuses to let stream %s be read: %w", r.stream, refused.in(c))
	}
	return err
}

// eventOf reads a stored message as an event of type T.
func eventOf[T any](m jetstream.Msg) (events.Event[T], error) {
	e, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	if err != nil {
		return events.Event[T]{}, err
	}
	return bus.Typed[T](e)
}
