//go:build unix

package elevate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/account"
)

func TestArgumentsAreWrittenSoThatTheyMatchOnlyThemselves(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		old  bool
		want string
	}{
		"no arguments permit none, and not any":      {nil, false, `""`},
		"plain ones stay readable":                   {[]string{"-i", "hello_1.deb"}, false, `-i hello_1.deb`},
		"wildcards stand for themselves":             {[]string{"*?[a]"}, false, `[*][?][[]a]`},
		"a backslash goes through two readers":       {[]string{`\`}, false, `\\\\`},
		"what sudoers reads is escaped":              {[]string{"a=b,c:d#e"}, false, `a\=b\,c\:d\#e`},
		"two quotes are not the word for nothing":    {[]string{`""`}, false, `["]["]`},
		"blanks in an argument are kept":             {[]string{"a  b"}, false, `a\ \ b`},
		"an empty argument keeps its blanks":         {[]string{"a", "", "b"}, false, `a\ \ b`},
		"a first ^ is no regular expression":         {[]string{"^a$"}, false, `\^a$`},
		"an old sudo knows no backslash before it":   {[]string{"^a$"}, true, `^a$`},
		"a ^ further on is nothing special":          {[]string{"a^"}, false, `a^`},
		"a last blank does not continue the line":    {[]string{"a", ""}, false, `a[\ ]`},
		"letters beyond ASCII are letters":           {[]string{"ü"}, false, `ü`},
		"what sudo takes for an option is an option": {[]string{"-s", "!x"}, false, `-s !x`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := sudoersArgs(test.args, test.old)
			if err != nil || got != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

func TestWhatARuleCannotSayIsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"a line break": {"a\nb"}, "a NUL": {"a\x00"}, "a tabulator": {"\t"}, "an escape character": {"\x1b"}, "bytes that are no text": {"\xff"}, "one empty argument": {""},
	} {
		if got, err := sudoersArgs(args, false); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, path := range []string{"/a\\b", "/a\nb"} {
		if got, err := sudoersPath(path); err == nil {
			t.Errorf("path %q: %s", path, got)
		}
	}
}

// readArgs is sudo's lexer for arguments (plugins/sudoers/toke.l, state GOTCMND): what it hands to fnmatch, or an error.
func readArgs(text string) (string, error) {
	var pattern strings.Builder
	blank := false
	put := func(s string) {
		if blank && pattern.Len() > 0 {
			pattern.WriteByte(' ')
		}
		blank = false
		pattern.WriteString(s)
	}
	for len(text) > 0 {
		c := text[0]
		switch {
		case c == '\\' && strings.Trim(text[1:], " ") == "":
			return "", fmt.Errorf("the line goes on after %q", text)
		case c == '\\' && len(text) > 1 && strings.ContainsRune("*?[]!^", rune(text[1])):
			put(text[:2])
			text = text[2:]
		case c == '\\' && len(text) > 1 && strings.ContainsRune(":\\,= \t#", rune(text[1])):
			put(text[1:2])
			text = text[2:]
		case c == ' ' || c == '\t':
			blank = true
			text = text[1:]
		case strings.ContainsRune("\\#:,=\r\n", rune(c)):
			return "", fmt.Errorf("the arguments end before %q", text)
		case c == '^' && pattern.Len() == 0:
			return "", fmt.Errorf("a regular expression %q", text)
		default:
			n := strings.IndexAny(text, "#\\:, \t\r\n")
			if n < 0 {
				n = len(text)
			}
			put(text[:n])
			text = text[n:]
		}
	}
	if blank {
		return "", fmt.Errorf("blanks at the end")
	}
	return pattern.String(), nil
}

// onlyMatch is the one text that a pattern of fnmatch matches; an error if there are more.
func onlyMatch(pattern string) (string, error) {
	var b strings.Builder
	for len(pattern) > 0 {
		r, size := utf8.DecodeRuneInString(pattern)
		switch {
		case r == '\\' && len(pattern) > 1:
			r, n := utf8.DecodeRuneInString(pattern[1:])
			b.WriteRune(r)
			size = 1 + n
		case r == '[':
			one, n := utf8.DecodeRuneInString(pattern[1:])
			if len(pattern) < 2+n || pattern[1+n] != ']' || one == '!' || one == '^' || one == ']' || one == '\\' {
				return "", fmt.Errorf("a set in %q", pattern)
			}
			b.WriteRune(one)
			size = 2 + n
		case r == '*' || r == '?' || r == '\\':
			return "", fmt.Errorf("a wildcard in %q", pattern)
		default:
			b.WriteString(pattern[:size])
		}
		pattern = pattern[size:]
	}
	return b.String(), nil
}

func FuzzArguments(f *testing.F) {
	for _, seed := range []string{"-i\x00a b", "", "\x00", "*\x00[!a]\x00\\", "^a$", `""`, "a=b\x00#1\x00,:", "a\x00", "a  ", "ü \x00\x00 "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\x00")
		text, err := sudoersArgs(args, false)
		if err != nil {
			if joined != "" && !slices.ContainsFunc(args, control) {
				t.Errorf("%q is refused: %v", args, err)
			}
			return
		}
		if strings.ContainsAny(text, "\n\r\t\x00") {
			t.Fatalf("%q is written %q", args, text)
		}
		pattern, err := readArgs(text)
		if err != nil {
			t.Fatalf("%q is written %s: %v", args, text, err)
		}
		if got, err := onlyMatch(pattern); err != nil || got != strings.Join(args, " ") || pattern == `""` {
			t.Errorf("%q is written %s, which matches %q, %v", args, text, got, err)
		}
	})
}

// readEnvironment is sudo's reader of env_file (sudo_parseln and env_file_next_local).
func readEnvironment(data string) []string {
	var env []string
	for line := range strings.Lines(data) {
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), "#")
		line = strings.Trim(line, " \t\r\v\f")
		if rest, found := strings.CutPrefix(line, "export "); found {
			line = strings.TrimLeft(rest, " ")
		}
		name, value, found := strings.Cut(line, "=")
		if !found || name == "" {
			continue
		}
		if n := len(value); n > 1 && (value[0] == '\'' || value[0] == '"') && value[0] == value[n-1] {
			value = value[1 : n-1]
		}
		env = append(env, name+"="+value)
	}
	return env
}

func FuzzEnvironment(f *testing.F) {
	for _, seed := range []string{"A=1", "A='\"'\x00B= x ", "export=1", "A=#", "A=\n", "A B=1", "=", "A", "HOME=/a*", "A=\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		env := strings.Split(joined, "\x00")
		if checkEnvironment(env) != nil || slices.ContainsFunc(env, func(entry string) bool { return !strings.Contains(entry, "=") }) {
			return // the latter the supervisor's Spec refuses
		}
		if diff := cmp.Diff(env, readEnvironment(string(envFile(env)))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAVariableThatSudoCannotCarryIsNamed(t *testing.T) {
	for entry, want := range map[string]string{
		"A=#": "the value of \"A\"", "A=a\nb": "the value of \"A\"", "HOME=/a b": "the value of \"HOME\"", "TERM=*": "the value of \"TERM\"", "A B=1": "the name of variable \"A B\"", "'=1": "the name of variable \"'\"",
	} {
		if err := checkEnvironment([]string{"OK=1", entry}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", entry, err, want)
		}
	}
}

func TestVersionsOfSudo(t *testing.T) {
	for text, want := range map[string]struct {
		v     version
		known bool
	}{
		"Sudo version 1.9.13p3\nConfigure options:": {version{1, 9, 13}, true},
		"Sudo version 1.9.5p2":                      {version{1, 9, 5}, true},
		"sudo-rs 0.2.8":                             {version{}, false},
		"":                                          {version{}, false},
	} {
		if v, known := parseVersion(text); v != want.v || known != want.known {
			t.Errorf("%q is %v, %v", text, v, known)
		}
	}
	if !(version{1, 9, 2}).before(1, 9, 3) || (version{1, 9, 13}).before(1, 9, 3) || (version{1, 9, 3}).before(1, 9, 3) || (version{2, 0, 0}).before(1, 9, 10) {
		t.Error("versions are in a wrong order")
	}
}

func FuzzVersion(f *testing.F) {
	f.Add("Sudo version 1.9.13p3")
	f.Fuzz(func(t *testing.T, text string) {
		if v, known := parseVersion(text); known && (v.major < 0 || v.major > 9999 || !strings.Contains(text, "Sudo version")) {
			t.Errorf("%q is %v", text, v)
		}
	})
}

func TestARuleSaysWhoseItIs(t *testing.T) {
	r := rule{
		until:   time.Date(2026, 12, 1, 9, 5, 0, 1, time.FixedZone("", 3600)),
		record:  record{Name: "chandler-job1-1", Grant: Grant{Dir: "/run", Account: account.Account{Name: "tok&en", UID: 1001}, Kind: ClientToken, Job: "job1", Program: "a\nALL ALL=(ALL) NOPASSWD: ALL\n\\", Attempt: 1}},
		records: "/var/lib/records", command: "/bin/true", digest: strings.Repeat("0", 64), dir: "/run dir", envFile: "/env", version: version{1, 9, 13},
	}
	text, err := r.text()
	if err != nil {
		t.Fatal(err)
	}
	h, ours := parseHeader([]byte(text))
	if diff := cmp.Diff(header{Records: r.records, record: r.record}, h, cmp.AllowUnexported(header{})); !ours || diff != "" {
		t.Errorf("%v\n%s", ours, diff)
	}
	if lines := strings.Count(text, "\n"); lines != 6 || strings.Contains(text, "\nALL") {
		t.Errorf("%d lines:\n%s", lines, text)
	}
	if want := `#1001 ALL = (#0) NOTAFTER=20261201080500Z CWD=/run\ dir NOPASSWD: NOSETENV: EXEC: ` + aliasOf(r.record.Name) + "\n"; !strings.HasSuffix(text, want) {
		t.Errorf("got %s, want it to end %s", text, want)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("# x\n" + headerMark + `{"records":"/r","name":"chandler-job1-1","dir":"/d","account":{"Name":"a"}}` + "\n"))
	f.Add([]byte("# x\nALL ALL=(ALL) ALL\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, ours := parseHeader(text); ours && (h.valid() != nil || strings.ContainsAny(h.Name, "/.")) {
			t.Errorf("%q is %+v", text, h)
		}
	})
}

func FuzzRecord(f *testing.F) {
	seed, err := json.Marshal(record{Name: "chandler-job1-1", Grant: Grant{Dir: "/d", Account: account.Account{Name: "a"}}, Notes: []untold{{Saying: returned}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"name":"chandler-../x","dir":"/d","account":{"Name":"a"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err == nil && (strings.ContainsAny(r.Name, "/.") || r.Account.Name == "") {
			t.Errorf("%q is %+v", data, r)
		}
	})
}
