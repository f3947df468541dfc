package publish

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestNotesTellOfContextsThatWillHardlyDo(t *testing.T) {
	sample, err := os.ReadFile("../../../events/msi/testdata/sample.msi")
	if err != nil {
		t.Fatal(err)
	}
	const rights, ended, opening, scope = "needs more rights than users have; use run: administrative", "nobody can tell how it ended", "is an opening", "msi-scope has no effect"
	for name, c := range map[string]struct {
		program string // in YAML, between braces
		want    string // of the notes about context; "": none of them
	}{
		"a .deb as the user":                            {"command: [dpkg, -i, hello.deb], run: user", rights},
		"a .deb as the user, by a line for a shell":     {"command: dpkg -i ./HELLO.DEB, shell: sh, run: user", rights},
		"a .deb by an administrator":                    {"command: [dpkg, -i, hello.deb], run: administrative", ""},
		"an .rpm as the user":                           {"command: rpm -U other.rpm, run: user", rights},
		"an .msi for the machine as the user":           {"command: msiexec /i setup.msi allusers=1, run: user", rights},
		"an .msi for the machine, by a user's choice":   {`command: [msiexec, /i, setup.msi, ALLUSERS=2, "MSIINSTALLPERUSER="], run: user`, rights},
		"an .msi for the user as the user":              {"command: msiexec /i setup.msi ALLUSERS=2 MSIINSTALLPERUSER=1, run: user", ""},
		"an .msi as it was made":                        {"command: msiexec /i setup.msi, run: user", ""},
		"something else as the user":                    {"command: [cp, data/notes.txt, /tmp], run: user", ""},
		"a program that restarts and is not detected":   {"command: [reboot], run: administrative, after: program-restarts", ended},
		"a program that restarts and is detected":       {"command: [reboot], run: administrative, after: program-restarts, detect: [{dpkg: x}]", ""},
		"the agent restarts after it":                   {"command: [true], run: administrative, after: restart", ""},
		"a program that restarts undoes a detected one": {"command: [reboot], run: administrative, after: program-restarts, undoes: other", ""},
		"an administrator's program that is shown":      {"command: [setup], run: administrative, interactive: true", opening},
		"msi-scope of something else":                   {"command: [setup], run: administrative, msi-scope: machine", scope},
		"msi-scope of a removal":                        {"command: [msiexec, /x, setup.msi], run: administrative, msi-scope: as-authored", scope},
		"msi-scope of a line for a shell":               {"command: echo hello, shell: sh, run: administrative, msi-scope: machine", scope},
		"msi-scope of an .msi":                          {"command: [msiexec, /i, setup.msi], run: administrative, msi-scope: machine", ""},
		"msi-scope of an .msi by a shell":               {"command: msiexec /i setup.msi, shell: cmd, run: administrative, msi-scope: machine", ""},
		"msi-scope of an .msi that is elsewhere":        {`command: msiexec /i c:\other.msi, run: administrative, msi-scope: machine`, ""},
		"a user's program that is shown":                {"command: [setup], run: user, interactive: true", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, SpecName, "api: chandler/v1\npackage: hello\nversion: \"1\"\nprograms:\n  main: {"+c.program+"}\n  other: {command: [echo], run: administrative, detect: [{dpkg: x}]}\n")
			write(t, dir, "hello.deb", "a package")
			write(t, dir, "data/notes.txt", "notes")
			write(t, dir, "setup.msi", string(sample))
			notes := slices.DeleteFunc(read(t, dir, options()).Notes, func(n string) bool {
				return !strings.Contains(n, rights) && !strings.Contains(n, ended) && !strings.Contains(n, opening) && !strings.Contains(n, scope)
			})
			if len(notes) > 1 || (len(notes) == 1) != (c.want != "") || c.want != "" && (!strings.Contains(notes[0], c.want) || !strings.HasPrefix(notes[0], "program main: ")) {
				t.Errorf("notes %q, want %q", notes, c.want)
			}
		})
	}
}
