package lending

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// Client asks for one run. Its methods may be called at once by many.
type Client struct {
	path, dir string
	patience  time.Duration
}

// Dial makes a client of the agent that listens at path, for the run in dir. It connects when something is asked.
func Dial(path, dir string) *Client {
	return &Client{path: path, dir: dir, patience: lendLimit + frameLimit}
}

// Login asks for the account that reads an address. The caller clears the loan. The error is a *source.Error: the agent's
// refusal, or credential_unavailable where no agent answered in a minute or until ctx ended.
func (c *Client) Login(ctx context.Context, address string) (Loan, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for {
		got, err := c.ask(ctx, address)
		if err == nil {
			if got.refusal != nil {
				return got.loan, got.refusal
			}
			return got.loan, nil
		}
		if errors.Is(err, errFrame) || errors.Is(err, errUnsupported) {
			return Loan{}, unavailable(err)
		}
		select {
		case <-ctx.Done():
			return Loan{}, unavailable(err)
		case <-time.After(redialPause):
		}
	}
}

func unavailable(err error) error {
	return &source.Error{Reason: events.CredentialUnavailable, Answer: "the agent, which asks for accounts, was not heard", Err: err}
}

// ask fails where the agent is not there, or ends while it is asked.
func (c *Client) ask(ctx context.Context, address string) (answer, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.path)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(request{dir: c.dir, address: address}.encode()); err != nil {
		return answer{}, err
	}
	body, err := readFrame(conn)
	if err != nil {
		return answer{}, fmt.Errorf("ask for %s: %w", address, err)
	}
	got, err := parseAnswer(body)
	if err != nil {
		clear(body)
	}
	return got, err
}
