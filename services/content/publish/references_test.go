package publish

import (
	"slices"
	"strings"
	"testing"

	"chandler/events"
)

func TestEachMistakeAboutSourcesNamesItsLine(t *testing.T) {
	sum := events.DigestOf([]byte("program"))
	for name, c := range map[string]struct{ lines, at, want string }{
		"a source of nothing":                 {"source:\n" + runsIt, "4:", "source is empty"},
		"a source that is a list":             {"source: [a]\n" + runsIt, "4:9:", "source: write text"},
		"a source without a scheme":           {"source: files/software\n" + runsIt, "4:9:", "must begin with one of smb, https"},
		"a source in clear":                   {"source: http://files/software\n" + runsIt, "4:9:", "must begin with one of smb, https"},
		"a source of a later version":         {"source: s3://bucket/software\nfiles: [setup.sh]\n" + runsIt, "4:9:", "do not read s3://"},
		"a source without a share":            {"source: '\\\\files'\n" + runsIt, "4:9:", "must name a share"},
		"a source that leaves":                {"source: smb://files/a/../b\n" + runsIt, "4:9:", `without empty parts`},
		"a source in double quotes":           {"source: \"\\\\files\\\\software\"\n" + runsIt, "4:9:", "use single quotes"},
		"a source that is not there":          {"source: smb://files/nothing\n" + runsIt, "4:9:", `list \\files\nothing: ada was answered`},
		"a source of which nothing is listed": {"source: smb://files/apps\nfiles: []\n" + runsIt, "4:9:", "no file is read from there"},
		"a source over https without a list":  {"source: https://files/apps\n" + runsIt, "4:9:", "list the files under files"},
		"a source with a star":                {"source: smb://files/*\nfiles: [setup.sh]\n" + runsIt, "4:9:", "stands for all below it already"},
		"a file that is not there":            {"source: smb://files/apps\nfiles: [setup.exe, b]\n" + runsIt, "5:20:", "file b is not there: ada was answered"},
		"a file outside":                      {"source: smb://files/apps\nfiles: [../secret]\n" + runsIt, "5:9:", "leaves the package's directory"},
		"a file that grows":                   {"source: smb://files/odd\nfiles: [growing]\n" + runsIt, "5:9:", "changed while it was read"},
		"a file without a size":               {"source: smb://files/odd\nfiles: [endless]\n" + runsIt, "5:9:", "does not say how long it is"},
		"a program that is not there":         {"programs: {p: {command: ['\\\\files\\apps\\b.exe'], run: user}}\n", "4:25:", "program p: ada was answered"},
		"a program of a later version":        {"programs: {p: {command: ['s3://files/b.exe'], run: user}}\n", "4:25:", "do not read s3://"},
		"a program with a star":               {"programs: {p: {command: ['\\\\files\\apps\\*.exe'], run: user}}\n", "4:25:", "has a *"},
		"a program over http":                 {"programs: {p: {command: ['http://files/b.exe'], run: user}}\n", "4:25:", "the file that its command names \"http://files/b.exe\" must begin with"},
		"a program with a query":              {"programs: {p: {command: ['https://files/b.exe?x=1'], run: user}}\n", "4:25:", "must not have a query"},
		"a program that is a share":           {"programs: {p: {command: ['\\\\files\\apps'], run: user}}\n", "4:25:", "is the share apps, not a file on it"},
		"a program on no host":                {"programs: {p: {command: ['\\\\%SERVER%\\apps\\a.exe'], run: user}}\n", "4:", "is not the name of one host"},
		"an .msi as program":                  {"programs: {p: {command: ['\\\\files\\apps\\a.msi'], run: user}}\n", "4:25:", "write msiexec /i before it"},
		"an .msi from another directory":      {"programs: {p: {command: 'msiexec /i \\\\files\\apps\\a.msi', working-directory: x, run: user}}\n", "4:", "take working-directory away"},
		"an .msi that is none":                {"programs: {p: {command: 'msiexec /i \\\\files\\odd\\no.msi', run: user}}\n", "4:", "it installs no.msi: open installer database"},
		"a name for a list":                   {"programs: {p: {command: '\"\\\\files\\odd\\a$b.sh\" x', run: user}}\n", "4:", "write the command as a list"},
		"two programs that cannot be told":    {"programs: {p: {command: ['https://a/x.exe'], run: user}, q: {command: ['https://b/x.exe'], run: user}}\n", "4:25:", "would have the path of another file"},
		"references that are texts":           {"programs: {p: {command: [a], run: user, references: [x]}}\n", "4:", ""},
		"an unknown key of a reference":       {"programs: {p: {command: [a], run: user, references: [{uri: x}]}}\n", "4:55:", "unknown key \"uri\": did you mean url?"},
		"a reference of nothing":              {"programs: {p: {command: [a], run: user, references: [{optional: true}]}}\n", "4:", "reference 1 has no url"},
		"a reference without a scheme":        {"programs:\n  p:\n    command: [a]\n    run: user\n    references:\n      - url: smb://h/a\n      - url: files\n", "10:14:", "reference 2 \"files\" must begin"},
		"a reference twice":                   {"programs: {p: {command: [a], run: user, references: [{url: smb://h/a}, {url: '\\\\H\\A'}]}}\n", "4:", `\\h\A is listed twice`},
		"a reference with a star":             {"programs: {p: {command: [a], run: user, references: [{url: smb://h/a/*}]}}\n", "4:", "stands for all below it already"},
		"a reference on the machine":          {"programs: {p: {command: [a], run: user, references: [{url: file:///etc}]}}\n", "4:", "leave it out"},
		"a reference of a later version":      {"programs: {p: {command: [a], run: user, references: [{url: oci://h/a}]}}\n", "4:", "do not read oci://"},
		"a digest that is none":               {"programs: {p: {command: [a], run: user, references: [{url: smb://files/apps/setup.exe, sha256: optional}]}}\n", "4:", "reference 1 digest"},
		"a digest of something else":          {"programs: {p: {command: [a], run: user, references: [{url: smb://files/odd/no.msi, sha256: " + sum + "}]}}\n", "4:", "has the sha256 " + events.DigestOf([]byte("text")) + " now"},
		"references without end":              {"programs: {p: {command: [a], run: user, references: [" + strings.Repeat("{url: smb://h/a},", 65) + "]}}\n", "4:", "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{files: map[string]string{"smb://files/apps/setup.exe": "program", "smb://files/odd/no.msi": "text", "smb://files/odd/growing": "growing", "smb://files/odd/endless": "endless",
				"smb://files/odd/a$b.sh": "x"}}
			_, err := Read(t.Context(), outer(t, c.lines), outsideOptions(s))
			if err == nil {
				t.Fatal("nothing was found")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), SpecName+":"+c.at) {
				t.Errorf("error: %v", err)
			}
			if s.open != 0 {
				t.Errorf("%d files were left open", s.open)
			}
		})
	}
}

func TestAPasswordInAnAddressIsNotRepeated(t *testing.T) {
	for _, lines := range []string{
		"source: smb://ada:hunter2@files/software\n" + runsIt,
		"programs: {p: {command: [a], run: user, references: [{url: 'https://ada:hunter2@files/a'}]}}\n",
		"programs: {p: {command: ['https://ada:hunter2@files/a'], run: user}}\n",
	} {
		_, err := Read(t.Context(), outer(t, lines), options())
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "must not name a user or password") || !strings.Contains(err.Error(), SpecName+":4:") {
			t.Errorf("error: %v", err)
		}
	}
}

func TestNotesTellWhatComesOfSources(t *testing.T) {
	sum := events.DigestOf([]byte("program"))
	const (
		legacy, users, https = "on legacy clients it fails (no_network_identity)", "the variable CHANDLER_NET is not there", "users have no login for https"
		unread, unverified   = "a sha256 was not checked: read \\\\files\\b: ada was answered: file does not exist; --source-user says who reads it", `read unverified while it runs, whatever lies there then: \\files\licences`
		unlisted, mount      = "which is none of its references", "which is there for programs with references only"
		own                  = "is on each machine's own disk"
	)
	for name, c := range map[string]struct {
		lines string
		want  []string
	}{
		"content, for any client":             {"source: smb://files/apps\nprograms: {p: {command: [setup.exe], run: administrative}}\n", []string{"its content is on an external source: " + legacy}},
		"content, by an installation account": {"source: smb://files/apps\nprograms: {p: {command: [setup.exe], run: administrative, installation-account: corp}}\n", nil},
		"content, of users":                   {"source: smb://files/apps\nprograms: {p: {command: [setup.exe], run: user}}\n", nil},
		"content over https, of users":        {"source: https://files/apps\nfiles: [setup.exe]\nprograms: {p: {command: [setup.exe], run: user}}\n", []string{https}},
		"content on the machine": {"source: file:///apps\nfiles: [setup.exe]\nprograms: {p: {command: [setup.exe], run: administrative, installation-account: corp}}\n",
			[]string{own}},
		"references":                 {"programs: {p: {command: [a], run: administrative, references: [{url: smb://files/licences}]}}\n", []string{"its references are on external sources: " + legacy, unverified}},
		"references of users":        {"programs: {p: {command: [a], run: user, references: [{url: smb://files/apps/setup.exe, sha256: " + sum + "}]}}\n", []string{users}},
		"a pinned one":               {"programs: {p: {command: [a], run: administrative, installation-account: x, references: [{url: smb://files/apps/setup.exe, sha256: " + sum + "}]}}\n", nil},
		"a pinned one that is hid":   {"programs: {p: {command: [a], run: administrative, installation-account: x, references: [{url: smb://files/b, sha256: " + sum + "}]}}\n", []string{unread}},
		"a share that is not listed": {"programs: {p: {command: [a, '/source:\\\\files\\my apps'], run: administrative}}\n", []string{`its command names \\files\my apps, ` + unlisted}},
		"a share for a shell":        {"programs: {p: {command: 'copy \\\\files\\apps\\a c:\\', shell: cmd, run: administrative}}\n", []string{unlisted}},
		"a share that is listed":     {"programs: {p: {command: [a, '\\\\files\\licences\\x'], run: administrative, installation-account: x, references: [{url: smb://files/licences}]}}\n", []string{unverified}},
		"a share of users":           {"programs: {p: {command: [a, '\\\\files\\apps\\x'], run: user}}\n", nil},
		"a mount without references": {"programs: {p: {command: 'ls $CHANDLER_NET/files', shell: sh, run: administrative}}\n", []string{mount}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{files: map[string]string{"smb://files/apps/setup.exe": "program", "https://files/apps/setup.exe": "program", "file:///apps/setup.exe": "program"}}
			notes := slices.DeleteFunc(read(t, outer(t, c.lines), outsideOptions(s)).Notes, func(n string) bool { return strings.Contains(n, "has no files") })
			if len(notes) != len(c.want) {
				t.Errorf("notes %q", notes)
			}
			for i, want := range c.want {
				if i < len(notes) && !strings.Contains(notes[i], want) {
					t.Errorf("note %q, want %q", notes[i], want)
				}
			}
		})
	}
	dir := outer(t, "source: smb://files/apps\nprograms: {p: {command: [setup.exe], run: user}}\n")
	write(t, dir, "left.txt", "x")
	p := read(t, dir, outsideOptions(&shelf{files: map[string]string{"smb://files/apps/setup.exe": "program"}}))
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], `left.txt beside package.yaml is not in the package, whose files are those at \\files\apps`) {
		t.Errorf("notes %q", p.Notes)
	}
}
