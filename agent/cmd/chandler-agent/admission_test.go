package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"chandler/agent/enrol"
	"chandler/agent/journal"
	"chandler/events"
)

func TestARefusedMachineIsNotSaidToBeEnrolled(t *testing.T) {
	for refusal, advice := range map[events.EnrolRefusal]string{
		events.RefusedRevoked: "enrol --anew", events.RefusedMachine: "enrol --anew",
		events.RefusedLapsed: "agent approve", events.RefusedArchived: "agent approve",
	} {
		t.Run(string(refusal), func(t *testing.T) {
			f := newFleet(t)
			file, _ := configure(t, "")
			token := f.tokenFile(t)
			if out, err := said(t, "enrol", "-c", file, "--token-file", token); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f.refuse(refusal)
			for range 2 { // the second time it knows
				out, err := said(t, "enrol", "-c", file, "--token-file", token)
				if err == nil || !strings.Contains(err.Error(), string(refusal)) || !strings.Contains(err.Error(), advice) {
					t.Errorf("says %v\n%s", err, out)
				}
			}
			f.broker.Stop() // another process knows it too, and asks nobody
			if out, err := said(t, "doctor", "-c", file); err == nil || !strings.Contains(out, advice) {
				t.Errorf("doctor: %v\n%s", err, out)
			}
			if out, err := said(t, "enrol", "-c", file, "--token-file", token); err == nil || !strings.Contains(err.Error(), string(refusal)) {
				t.Errorf("with the broker away: %v\n%s", err, out)
			}
			f.broker.Restart()
			f.refuse("")
			for {
				out, err := said(t, "enrol", "-c", file, "--token-file", token)
				if err != nil && enrol.Away(err) { // the service is not connected yet
					continue
				}
				if err != nil || !strings.Contains(out, "enrolled (its identity is renewed") {
					t.Errorf("let in again: %v\n%s", err, out)
				}
				break
			}
			if out, err := said(t, "enrol", "-c", file); err != nil || !strings.Contains(out, "nothing changed") {
				t.Errorf("the refusal stays: %v\n%s", err, out)
			}
		})
	}
}

func TestAnewKeepsTheOldIdentityUntilTheNewOneIsThere(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := keep(t, state)
	f.refuse(events.RefusedSpent)
	_, err := saidTo(t, f.token, "enrol", "--anew", "-c", file)
	if err == nil || strings.Count(err.Error(), "used as often as it may be") != 1 || !strings.Contains(err.Error(), "token create --uses N") {
		t.Errorf("says %v", err)
	}
	if !same(before, keep(t, state)) {
		t.Error("the identity is gone")
	}
	f.refuse(events.RefusedPending)
	out, err := saidTo(t, f.token, "enrol", "--anew", "-c", file)
	after := keep(t, state)
	if err != nil || !strings.Contains(out, "waits for approval") || after["agent.key"] == before["agent.key"] || after["agent.jwt"] != "" || after["identity.json"] == "" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAnewSaysThatARunningAgentMustBeRestarted(t *testing.T) {
	file, state := configure(t, "")
	made(t, file)
	store, err := journal.Open(filepath.Join(state, "journal.db")) // as a running agent does
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	f := newFleet(t)
	out, err := saidTo(t, f.token, "enrol", "--anew", "-c", file)
	if err != nil || !strings.Contains(out, "restart it") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAKeyThatIsMissingIsNotReplacedSilently(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(state, "agent.key")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"enrol"}, {"run", "--metrics", "127.0.0.1:0"}} {
		if _, err := said(t, append(args, "-c", file)...); err == nil || !strings.Contains(err.Error(), "agent.key is missing") || !strings.Contains(err.Error(), "--anew") {
			t.Errorf("%s: %v", args[0], err)
		}
	}
	if out, err := said(t, "doctor", "-c", file); err == nil || !strings.Contains(out, "agent.key is missing") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if out, err := saidTo(t, f.token, "enrol", "--anew", "-c", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAnImageTakesNoToken(t *testing.T) {
	file, _ := configure(t, "")
	root := t.TempDir()
	refused := func(args ...string) {
		t.Helper()
		_, err := said(t, append([]string{"install", "-c", file, "--root", root}, args...)...)
		if err == nil || !strings.Contains(err.Error(), "an image has no identity") {
			t.Errorf("%v: %v", args, err)
		}
		if files, err := os.ReadDir(root); err != nil || len(files) != 0 {
			t.Errorf("installed %v, %v", files, err)
		}
	}
	refused("--token-file", filepath.Join(root, "token"))
	t.Setenv(tokenVariable, "x")
	refused()
}

func TestStatusTellsAMachineThatHasEnrolledAndNeverRan(t *testing.T) {
	f := newFleet(t)
	file, _ := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := said(t, "status", "-c", file)
	if err != nil || !strings.Contains(out, "enrolled, expires") || !strings.Contains(out, "chandler-agent install") || !strings.Contains(out, "test, trust bundle 1") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := said(t, "status", "-c", file, "-o", "json"); err != nil || !strings.Contains(out, `"phase": "enrolled"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEnrollingWithoutABrokerNamesWhatWasTried(t *testing.T) {
	f := newFleet(t)
	f.broker.Stop()
	file, _ := configure(t, "")
	_, err := saidTo(t, f.token, "enrol", "-c", file)
	if err == nil || !strings.Contains(err.Error(), f.broker.URL()) || !strings.Contains(err.Error(), "firewall") {
		t.Errorf("says %v", err)
	}
}

func TestAnAgentThatStartsBeforeItsBrokerWaitsForIt(t *testing.T) {
	f := newFleet(t)
	f.broker.Stop()
	file, _ := configure(t, "")
	conf, err := readConfig(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, facts, err := conf.keeper(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	source, err := tokenFrom(f.tokenFile(t), nil, io.Discard, false)
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	err = untilThere(t.Context(), slog.New(slog.DiscardHandler), time.Millisecond, func() error {
		if tries++; tries == 3 {
			f.broker.Restart()
		}
		return enrolWith(t.Context(), k, source, facts)
	})
	if err != nil || tries < 3 || !k.Enrolled() {
		t.Errorf("after %d tries: %v", tries, err)
	}
}

func TestWaitingForTheBrokerEndsWhereItIsInVain(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		errs []error
		want error
	}{
		"a refusal":              {[]error{&enrol.RefusedError{Refused: events.RefusedSpent}}, &enrol.RefusedError{}},
		"no token":               {[]error{errNoToken}, errNoToken},
		"no file of a token":     {[]error{&os.PathError{Op: "open", Path: "token", Err: syscall.ENOENT}}, os.ErrNotExist},
		"a service that is busy": {[]error{&enrol.RefusedError{Refused: events.RefusedLater}, nil}, nil},
	} {
		left := slices.Clone(c.errs)
		err := untilThere(ctx, log, time.Millisecond, func() error { err := left[0]; left = left[1:]; return err })
		_, refused := errors.AsType[*enrol.RefusedError](err)
		_, wanted := errors.AsType[*enrol.RefusedError](c.want)
		if len(left) != 0 || refused != wanted || !wanted && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := untilThere(ctx, log, time.Hour, func() error { stop(); return &enrol.RefusedError{Refused: events.RefusedLater} })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

func TestATokenThatOthersMayReadIsNamed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps no such modes")
	}
	f := newFleet(t)
	file, _ := configure(t, "")
	token := f.tokenFile(t)
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := said(t, "enrol", "-c", file, "--token-file", token)
	if err != nil || !strings.Contains(out, "chmod 600 "+token) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDoctorNamesACAThatIsNotThere(t *testing.T) {
	file, state := configure(t, "")
	made(t, file)
	path := filepath.Join(state, "identity.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pinned := strings.Replace(string(data), `"format": 1,`, `"format": 1, "ca": "`+strings.Repeat("ab", 32)+`",`, 1)
	if err := os.WriteFile(path, []byte(pinned), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := said(t, "doctor", "-c", file); err == nil || !strings.Contains(out, "FAIL  CA") || !strings.Contains(out, "ca.pem is missing") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := said(t, "enrol", "-c", file); err == nil || !strings.Contains(err.Error(), "ca.pem is missing") || !strings.Contains(err.Error(), "no token") {
		t.Errorf("without a token: %v", err)
	}
	f := newFleet(t)
	f.refuse(events.RefusedSpent)
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err == nil || !strings.Contains(err.Error(), "token_spent") {
		t.Errorf("with a token that is spent: %v\n%s", err, out)
	}
	f.refuse("")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil || !strings.Contains(out, "enrolled again") {
		t.Errorf("with a token: %v\n%s", err, out)
	}
	if out, err := said(t, "enrol", "-c", file); err != nil || !strings.Contains(out, "nothing changed") {
		t.Errorf("afterwards: %v\n%s", err, out)
	}
}
