package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/enrolment"
)

func enrolCommand(file *string) *cobra.Command {
	var from string
	var anew bool
	c := &cobra.Command{Use: "enrol", Short: "make this machine an agent of the fleet that a token names; done again, it changes nothing", Args: cobra.NoArgs}
	c.Flags().StringVar(&from, "token-file", "", "file with the token, - for standard input (else $"+tokenVariable+", else standard input)")
	c.Flags().BoolVar(&anew, "anew", false, "forget the identity that is here first: this machine becomes another agent, with a new key")
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := tokenFrom(from, c.InOrStdin(), true)
		if err != nil {
			return err
		}
		conf, err := readConfig(*file, nil)
		if err != nil {
			return err
		}
		if anew {
			token, err := source() // nothing is forgotten for want of a token
			if err != nil {
				return err
			}
			if err := enrol.Forget(conf.StateDir); err != nil {
				return err
			}
			source = func() (enrolment.Token, error) { return token, nil }
		}
		said, err := enrolMachine(c.Context(), conf, source)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), said)
		return nil
	}
	return c
}

// enrolMachine enrols the machine unless it has an identity, and says what came of it. A machine that was
// enrolled and is neither refused nor out of reach for good is left alone: the agent sees to its identity.
func enrolMachine(ctx context.Context, conf config, source tokenSource) (said string, err error) {
	log := slog.New(slog.DiscardHandler) // the command says itself what came of it
	k, facts, err := conf.keeper(ctx, log)
	if err != nil {
		return "", err
	}
	switch {
	case k.Valid():
		return fmt.Sprintf("agent %s of fleet %s, enrolled before: nothing changed", k.ID(), k.State().Fleet), nil
	case k.Enrolled():
		err = k.Return(ctx)
	default:
		err = enrolWith(ctx, k, source, facts)
	}
	var refused *enrol.RefusedError
	switch {
	case err == nil:
		s := k.State()
		return fmt.Sprintf("agent %s of fleet %s, enrolled (its identity is renewed by itself, the first until %s)", s.Agent, s.Fleet, s.Expires.Local().Format("2006-01-02 15:04")), nil
	case errors.As(err, &refused) && refused.Refused == events.RefusedPending:
		return fmt.Sprintf("agent %s waits for approval (chandler agent approve %s); it goes on by itself, without the token", k.ID(), k.ID()), nil
	case !k.Enrolled():
		return "", err
	case errors.As(err, &refused):
		if again := enrolWith(ctx, k, source, facts); again != nil {
			return "", errors.Join(err, again)
		}
		return fmt.Sprintf("agent %s of fleet %s, enrolled again", k.ID(), k.State().Fleet), nil
	}
	return fmt.Sprintf("agent %s, enrolled before; its identity has expired and the agent replaces it when it can: %v", k.ID(), err), nil
}

func enrolWith(ctx context.Context, k *enrol.Keeper, source tokenSource, facts events.Facts) error {
	token, err := source()
	if err != nil {
		return err
	}
	return k.Enrol(ctx, token, facts)
}

// keeper opens the machine's identity.
func (c config) keeper(ctx context.Context, log *slog.Logger) (*enrol.Keeper, events.Facts, error) {
	k, err := enrol.New(enrol.Options{Dir: c.StateDir, Servers: c.Servers, Log: log})
	if err != nil {
		return nil, events.Facts{}, err
	}
	facts, machine, err := agent.ReadFacts(ctx, agent.Options{Hostname: c.Hostname, Site: c.Site, Tags: c.Tags, ClientKind: events.ClientKind(c.ClientKind)})
	if err != nil {
		return nil, facts, err
	}
	return k, facts, k.BindMachine(machine)
}
