package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/enrol"
	"chandler/events"
)

func enrolCommand(file *string) *cobra.Command {
	var from string
	var anew bool
	c := &cobra.Command{Use: "enrol", Short: "make this machine an agent of the fleet that a token names; done again, it changes nothing", Args: cobra.NoArgs}
	c.Flags().StringVar(&from, "token-file", "", "file with the token, - for standard input (else $"+tokenVariable+", else standard input)")
	c.Flags().BoolVar(&anew, "anew", false, "make this machine another agent, with a new key, and forget the identity that is here")
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := tokenFrom(from, c.InOrStdin(), c.ErrOrStderr(), true)
		if err != nil {
			return err
		}
		conf, err := readConfig(*file, nil)
		if err != nil {
			return err
		}
		enrolNow := enrolMachine
		if anew {
			enrolNow = enrolAnew
		}
		said, err := enrolNow(c.Context(), conf, source)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), said)
		return nil
	}
	return c
}

// enrolAnew makes the machine another agent. The identity that is here is forgotten once the new one is there.
func enrolAnew(ctx context.Context, conf config, source tokenSource) (said string, err error) {
	if err := enrol.MakeDir(conf.StateDir); err != nil {
		return "", err
	}
	dir := filepath.Join(conf.StateDir, "anew")
	if err := os.RemoveAll(dir); err != nil { // left by an attempt that was broken off
		return "", fmt.Errorf("make room for the new identity: %w", err)
	}
	defer os.RemoveAll(dir)
	beside := conf
	beside.StateDir = dir
	if said, err = enrolMachine(ctx, beside, source); err != nil {
		return "", fmt.Errorf("%w; nothing was changed", err)
	}
	if err := enrol.Replace(conf.StateDir, dir); err != nil {
		return "", err
	}
	if s, err := agent.ReadStatus(conf.StateDir); err == nil && s.PID != 0 {
		said += fmt.Sprintf("\nan agent runs here as process %d and is still the old one, %s: restart it with `chandler-agent stop` and `chandler-agent start`", s.PID, s.ID)
	}
	return said, nil
}

// enrolMachine enrols the machine unless it has an identity that the fleet takes, and says what came of it. A machine
// whose identity holds, and is not refused, is left alone: the agent sees to its identity.
func enrolMachine(ctx context.Context, conf config, source tokenSource) (said string, err error) {
	log := slog.New(slog.DiscardHandler) // the command says itself what came of it
	k, facts, err := conf.keeper(ctx, log)
	if err != nil {
		return "", err
	}
	first, holds := !k.Enrolled(), k.State().Phase == enrol.Enrolled
	switch {
	case first:
		err = enrolWith(ctx, k, source, facts)
	case holds:
		err = k.Confirm(ctx)
	default:
		err = k.Return(ctx)
	}
	if !first && needsToken(err) {
		again := enrolWith(ctx, k, source, facts)
		refused, _ := errors.AsType[*enrol.RefusedError](again)
		switch {
		case again == nil:
			return fmt.Sprintf("agent %s of fleet %s, enrolled again", k.ID(), k.State().Fleet), nil
		case refused == nil:
			return "", fmt.Errorf("agent %s: %w; with a token: %w", k.ID(), err, again)
		case refused.Refused != events.RefusedPending:
			return "", fmt.Errorf("agent %s: %w", k.ID(), again)
		}
		err = again
	}
	return outcome(k, holds, err)
}

// needsToken says whether only a token mends what keeps an enrolled machine out.
func needsToken(err error) bool {
	refused, ok := errors.AsType[*enrol.RefusedError](err)
	return errors.Is(err, enrol.ErrCA) || ok && refused.Refused == events.RefusedUnknown
}

// outcome says what came of asking for an identity; holds: there is one that has not expired.
func outcome(k *enrol.Keeper, holds bool, err error) (said string, failure error) {
	s := k.State()
	refused, _ := errors.AsType[*enrol.RefusedError](err)
	switch {
	case err == nil && holds:
		return fmt.Sprintf("agent %s of fleet %s, enrolled before: nothing changed", s.Agent, s.Fleet), nil
	case err == nil:
		return fmt.Sprintf("agent %s of fleet %s, enrolled (its identity is renewed by itself, the first until %s)", s.Agent, s.Fleet, s.Expires.Local().Format("2006-01-02 15:04")), nil
	case refused != nil && refused.Refused == events.RefusedPending:
		return fmt.Sprintf("agent %s waits for approval (chandler agent approve %s); it goes on by itself, without the token", s.Agent, s.Agent), nil
	case !k.Enrolled() || refused != nil && s.Phase == enrol.Refused:
		return "", fmt.Errorf("agent %s: %w", s.Agent, err)
	case s.Phase == enrol.Refused:
		return "", fmt.Errorf("agent %s was refused (%s) when it last asked, and gets no answer now: %w", s.Agent, s.Refused, err)
	case holds:
		return fmt.Sprintf("agent %s of fleet %s, enrolled before: nothing changed; whether the fleet still takes it could not be asked: %v", s.Agent, s.Fleet, err), nil
	}
	if !enrol.Away(err) {
		return "", fmt.Errorf("agent %s: %w", s.Agent, err)
	}
	return fmt.Sprintf("agent %s, enrolled before; its identity has expired and the agent replaces it when it can: %v", s.Agent, err), nil
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
