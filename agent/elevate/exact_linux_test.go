package elevate

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSudoMatchesExactlyWhatTheRuleSays asks the real sudo about random arguments and about some that differ a little.
func TestSudoMatchesExactlyWhatTheRuleSays(t *testing.T) {
	m := newMachine(t)
	random := rand.New(rand.NewPCG(1, 2))
	seen, refused := 0, 0
	for i := range 150 {
		args := randomArgs(random)
		drop := rule{
			record: record{Name: "chandler-exact-" + strconv.Itoa(i), Grant: Grant{Dir: m.run, Account: m.who}}, records: m.options.Dir,
			command: "/bin/echo", args: args, dir: "/", envFile: "/nowhere", version: version{1, 9, 13}, until: time.Now().Add(time.Hour),
		}
		var err error
		drop.digest, err = digestOf(drop.command)
		m.must(err)
		text, err := drop.text()
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		path := filepath.Join("/etc/sudoers.d", drop.record.Name)
		m.must(os.WriteFile(path, []byte(text), 0o440))
		if !m.listed(args) {
			t.Errorf("sudo refuses %q by the rule\n%s", args, text)
		}
		seen++
		for range 3 {
			other := mutated(random, args)
			if slices.Equal(other, args) || len(other) > 0 && strings.Join(other, " ") == strings.Join(args, " ") {
				continue
			}
			if m.listed(other) {
				t.Errorf("sudo permits %q by the rule for %q\n%s", other, args, text)
			}
			refused++
		}
		m.must(os.Remove(path))
	}
	if seen < 150 || refused < 200 {
		t.Errorf("only %d asked, %d refused", seen, refused)
	}
}

// listed says whether sudo would run the command for the account.
func (m *machine) listed(args []string) bool {
	m.Helper()
	err := exec.CommandContext(m.Context(), "sudo", append([]string{"-n", "-l", "-U", m.who.Name, "--", "/bin/echo"}, args...)...).Run()
	return err == nil
}

func randomArgs(random *rand.Rand) []string {
	pieces := []string{"*", "?", "[", "]", "[a-z]", "[!a]", "!", "\\", "\\*", "^", "$", ".*", ",", ":", "=", "#", "#1", " ", "  ", `"`, `""`, "'", "(", ")", "%", "~", "@", "+", "-", "a", "b", "/", "ü", "日", "ALL", "{x,y}", "&", "|", ";", "<", ">", "`"}
	args := make([]string, random.IntN(4))
	for i := range args {
		for range random.IntN(5) {
			args[i] += pieces[random.IntN(len(pieces))]
		}
	}
	if len(args) == 1 && args[0] == "" {
		args[0] = "x"
	}
	return args
}

// mutated takes a special character for what it would mean if it were not escaped, or changes something else.
func mutated(random *rand.Rand, args []string) []string {
	other := slices.Clone(args)
	if len(other) == 0 || random.IntN(6) == 0 {
		return append(other, "x")
	}
	i := random.IntN(len(other))
	switch random.IntN(5) {
	case 0:
		other[i] += "a"
	case 1:
		other[i] = strings.NewReplacer("*", "zz", "?", "q", "[a-z]", "k", "[!a]", "b", ".*", "zz", "^", "", "$", "").Replace(other[i])
	case 2:
		other[i] = strings.ReplaceAll(other[i], "\\", "")
	case 3:
		return slices.Delete(other, i, i+1)
	case 4:
		other[i] = strings.Map(func(r rune) rune {
			if strings.ContainsRune(`*?[]!\,:=#"`, r) {
				return 'x'
			}
			return r
		}, other[i])
	}
	return other
}

func TestOddNamesOfCommandsAndDirectories(t *testing.T) {
	m := newMachine(t)
	m.content = filepath.Join(m.content, `we ird,=:#()<>!"\x41dir*`)
	m.must(os.MkdirAll(m.content, 0o700))
	for _, name := range []string{"in[s]t*all?.sh", "a b,=:#(1)!.sh", `q"uo'te^.sh`, "ünï.sh", "]", "-n", "ALL", "~x"} {
		command := filepath.Join(m.run, name)
		m.must(os.WriteFile(command, []byte(probe), 0o700))
		decoy := strings.NewReplacer("[s]", "s", "*", "X", "?", "Y").Replace(command)
		if decoy != command {
			m.must(os.WriteFile(decoy, []byte(probe), 0o700))
		}
		spec := m.spec(command)
		spec.Env = slices.DeleteFunc(spec.Env, func(entry string) bool { return strings.HasPrefix(entry, "CHANDLER_PACKAGE=") })
		granted, err := m.keeper.Grant(t.Context(), m.grant(), spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if decoy != command {
			if out, err := m.bySudo(decoy); err == nil {
				t.Errorf("%s may be run by the rule for %s: %s", decoy, command, out)
			}
		}
		outcome, output := m.start(granted)
		if want := " as " + command + " in " + m.content + " mask"; outcome.ExitCode != 42 || !strings.Contains(output, want) {
			t.Errorf("%s: %+v: %s", name, outcome, output)
		}
		m.must(m.keeper.Return(t.Context(), m.run))
		m.must(os.RemoveAll(filepath.Join(m.run, "lock")))
		for _, left := range []string{"started", "outcome.json", "process.json", "spec.json", "output", "supervisor.log"} {
			os.Remove(filepath.Join(m.run, left))
		}
	}
}
