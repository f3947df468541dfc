package elevate

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

func TestAKilledAgentLeavesAnOrdinaryAccountBehind(t *testing.T) {
	for _, step := range []string{"record", "written", "rule", "expiry", "given", "taken"} {
		t.Run("killed at step "+step, func(t *testing.T) {
			m := newMachine(t)
			m.dies(order{Step: step, Spec: m.spec("/bin/true"), Return: step == "taken"})
			if _, err := os.Stat(filepath.Join(m.options.Dir, "chandler-job1-1.json")); err != nil {
				t.Errorf("no record was left: %v", err)
			}
			m.must(m.keeper.Restore(t.Context()))
			m.ordinary("/bin/true")
			if len(m.told) == 0 || m.told[len(m.told)-1] != events.AgentAccountRestored.Name {
				t.Errorf("told %q", m.told)
			}
			m.must(m.keeper.Restore(t.Context()))
			m.must(m.keeper.Return(t.Context(), m.run))
			told := len(m.told)
			_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
			m.must(err)
			m.must(m.keeper.Return(t.Context(), m.run))
			m.ordinary("/bin/true")
			if len(m.told) != told+2 {
				t.Errorf("then told %q", m.told[told:])
			}
		})
	}
}

func TestRestoreDoesNotDisturbAProgramThatRuns(t *testing.T) {
	m := newMachine(t)
	meeting := supervisetest.Meet(t)
	argv := meeting.Program("install")
	m.dies(order{Spec: m.spec(argv...), Start: true})
	guest := meeting.Guest(t, "install")
	m.must(m.keeper.Restore(t.Context()))
	m.ordinary(argv...)
	guest.Do(t, "ping")
	guest.Exit(t, 7)
	run, err := supervise.Attach(m.run)
	m.must(err)
	if outcome, err := run.Wait(t.Context()); err != nil || outcome.ExitCode != 7 {
		t.Errorf("%+v, %v", outcome, err)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	if diff := cmp.Diff([]string{events.AgentAccountElevated.Name, events.AgentAccountRestored.Name}, m.told); diff != "" {
		t.Error(diff)
	}
}

func TestARuleEndsByItselfOnceTheProgramMustHaveStarted(t *testing.T) {
	m := newMachine(t)
	if within := m.keeper.system.(*sudo).within; within <= 2*askLimit || within > 10*time.Minute {
		t.Errorf("a rule counts for %v", within)
	}
	m.keeper.system.(*sudo).within = 4 * time.Second
	meeting := supervisetest.Meet(t)
	argv := meeting.Program("install")
	spec, err := m.keeper.Grant(t.Context(), m.grant(), m.spec(argv...))
	m.must(err)
	run, err := supervise.Start(supervisetest.Supervisor(), m.run, spec)
	m.must(err)
	guest := meeting.Guest(t, "install")
	for deadline := time.Now().Add(supervisetest.Patience); ; {
		_, err := m.asAccount(append([]string{"sudo", "-n", "-l", "--"}, argv...)...)
		if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the account may start the program again for as long as it runs")
		}
	}
	guest.Do(t, "ping")
	guest.Exit(t, 7)
	if outcome, err := run.Wait(t.Context()); err != nil || outcome.ExitCode != 7 {
		t.Errorf("%+v, %v", outcome, err)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	m.ordinary(argv...)
}

func TestADamagedRecordDoesNotKeepRights(t *testing.T) {
	m := newMachine(t)
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	m.must(err)
	m.must(os.WriteFile(filepath.Join(m.options.Dir, "chandler-job1-1.json"), []byte("{"), 0o600))
	second := m.grant()
	second.Job, second.Dir = "job2", t.TempDir()
	if _, err := m.keeper.Grant(t.Context(), second, m.spec("/bin/true")); !errors.Is(err, ErrBusy) {
		t.Errorf("a second grant gives %v", err)
	}
	m.must(m.keeper.Return(t.Context(), m.run))
	m.must(os.Remove(filepath.Join(m.options.Dir, "chandler-job1-1.unreadable")))
	m.ordinary("/bin/true")
	if m.told[len(m.told)-1] != events.AgentAccountReturned.Name {
		t.Errorf("told %q", m.told)
	}
}

func TestWhatFailsForOneRecordDoesNotKeepTheRightsOfOthers(t *testing.T) {
	for name, spoil := range map[string]func(m *machine, record string){
		"another record cannot be read": func(m *machine, record string) {
			m.must(os.Mkdir(filepath.Join(m.options.Dir, "chandler-other-1.json"), 0o700))
		},
		"a rule has no record, and there is no room for one": func(m *machine, record string) {
			m.must(os.Remove(record))
			m.must(os.MkdirAll(filepath.Join(record+".tmp", "in the way"), 0o700)) // as good as a full disk
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
			m.must(err)
			spoil(m, filepath.Join(m.options.Dir, "chandler-job1-1.json"))
			if err := m.keeper.Restore(t.Context()); err == nil {
				t.Error("that is no error")
			}
			m.must(os.RemoveAll(m.options.Dir))
			m.ordinary("/bin/true")
		})
	}
}

func TestWhatCouldNotBeTakenBackAtTheStartIsTakenBackAtTheNextCall(t *testing.T) {
	for name, call := range map[string]func(m *machine){
		"the next grant": func(m *machine) {
			_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
			m.must(err)
			m.must(m.keeper.Return(t.Context(), m.run))
		},
		"the return of another run": func(m *machine) { m.must(m.keeper.Return(t.Context(), "/another")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			rule := "/etc/sudoers.d/chandler-job1-1"
			m.dies(order{Step: "given", Spec: m.spec("/bin/true")})
			m.must(os.Remove(rule))
			m.must(os.MkdirAll(filepath.Join(rule, "in the way"), 0o755)) // as good as a file that cannot be removed
			if err := m.keeper.Restore(t.Context()); err == nil {
				t.Error("a rule that is still there is no error")
			}
			m.must(os.RemoveAll(rule))
			m.must(os.WriteFile(rule, []byte("#"+strconv.Itoa(int(m.who.UID))+" ALL=(ALL) NOPASSWD: /bin/true\n"), 0o440))
			call(m)
			m.ordinary("/bin/true")
			if len(m.told) == 0 || m.told[0] != events.AgentAccountRestored.Name {
				t.Errorf("told %q", m.told)
			}
		})
	}
}

func TestARuleWithoutARecordIsTakenBackAndOthersStay(t *testing.T) {
	m := newMachine(t)
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	m.must(err)
	own := "/etc/sudoers.d/chandler-operators-1"
	m.must(os.WriteFile(own, []byte("# ours\nnobody ALL=(root) /bin/true\n"), 0o440))
	m.must(os.Remove(filepath.Join(m.options.Dir, "chandler-job1-1.json")))
	other := m.options
	other.Dir = t.TempDir()
	elsewhere, err := New(other)
	m.must(err)
	m.must(os.WriteFile(filepath.Join(m.options.Dir, "chandler-job1-1.json"), []byte("{"), 0o600))
	m.must(elsewhere.Restore(t.Context()))
	if _, err := os.Stat("/etc/sudoers.d/chandler-job1-1"); err != nil {
		t.Fatalf("another agent on this machine lost its rule: %v", err)
	}
	m.told = nil
	m.must(m.keeper.Restore(t.Context())) // the record cannot be read
	if diff := cmp.Diff([]string{events.AgentAccountRestored.Name}, m.told); diff != "" {
		t.Error(diff)
	}
	m.must(os.Remove(own))
	m.must(os.Remove(filepath.Join(m.options.Dir, "chandler-job1-1.unreadable")))
	m.ordinary("/bin/true")
}

func TestAnAccountThatIsDeletedOrDisabledMidRunIsCleanedUp(t *testing.T) {
	for name, happens := range map[string][]string{
		"deleted":          {"userdel", "--"},
		"locked":           {"usermod", "-L", "--"},
		"ended by another": {"chage", "-E", "100", "--"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
			m.must(err)
			if out, err := exec.Command(happens[0], append(happens[1:], m.who.Name)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			m.must(m.keeper.Return(t.Context(), m.run))
			m.ordinary("/bin/true")
			if means := m.notes[1].Means; strings.Contains(means, "the account is deleted") != (name == "deleted") {
				t.Errorf("means %q", means)
			}
		})
	}
}

func TestNotesAreKeptUntilSomebodyTakesThem(t *testing.T) {
	m := newMachine(t)
	m.deaf = true
	for range 2 { // the second run has the same name
		_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
		m.must(err)
		m.must(m.keeper.Return(t.Context(), m.run))
	}
	if out, err := m.bySudo("/bin/true"); err == nil {
		t.Errorf("rights were kept until told: %s", out)
	}
	m.deaf = false
	m.restart()
	m.must(m.keeper.Restore(t.Context()))
	elevated, returned := events.AgentAccountElevated.Name, events.AgentAccountReturned.Name
	if diff := cmp.Diff([]string{elevated, returned, elevated, returned}, m.told); diff != "" {
		t.Error(diff)
	}
	m.ordinary("/bin/true")
}

func TestWhatCannotBeTakenBackIsTriedAgain(t *testing.T) {
	m := newMachine(t)
	_, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true"))
	m.must(err)
	rule := "/etc/sudoers.d/chandler-job1-1"
	text, err := os.ReadFile(rule)
	m.must(err)
	m.must(os.Remove(rule))
	m.must(os.MkdirAll(filepath.Join(rule, "in the way"), 0o755)) // as good as a file that cannot be removed
	if err := m.keeper.Return(t.Context(), m.run); err == nil {
		t.Error("a rule that is still there is no error")
	}
	if day, _, err := expiryDay(m.who.Name); day != endedDay || err != nil {
		t.Errorf("the second guard was not restored: %d, %v", day, err)
	}
	if _, err := m.keeper.Grant(t.Context(), m.grant(), m.spec("/bin/true")); !errors.Is(err, ErrBusy) {
		t.Errorf("the next grant gives %v", err)
	}
	m.must(os.RemoveAll(rule))
	m.must(os.WriteFile(rule, text, 0o440))
	m.must(m.keeper.Return(t.Context(), m.run))
	m.ordinary("/bin/true")
}
