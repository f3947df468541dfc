package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

type sample struct {
	Listen string          `yaml:"listen"`
	URLs   []string        `yaml:"urls"`
	Site   string          `yaml:"site"`
	Port   int             `yaml:"port"`
	On     bool            `yaml:"on"`
	Grace  events.Duration `yaml:"grace"`
	Log    LogConfig       `yaml:"log"`
	Deep   struct {
		Max_Size int64 `yaml:"max-size"` //nolint:revive // the tag is what matters
	} `yaml:"deep"`
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chandler.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadConfig(t *testing.T) {
	defaults := sample{Listen: "127.0.0.1:1", Port: 7, On: true, Log: LogConfig{Level: "info", Format: "text"}}
	with := func(change func(*sample)) sample { s := defaults; change(&s); return s }
	for name, c := range map[string]struct {
		file  string
		env   []string
		flags map[string]string
		want  sample
	}{
		"nothing leaves the defaults":   {want: defaults},
		"an empty file changes nothing": {file: "\n# only a comment\n", want: defaults},
		"the file overrides the defaults and leaves its neighbours": {
			file: "listen: :9\nlog: {level: debug}\n",
			want: with(func(s *sample) { s.Listen = ":9"; s.Log.Level = "debug" }),
		},
		"zero values can be written": {
			file: "port: 0\non: false\nlisten: \"\"\n",
			want: with(func(s *sample) { s.Port = 0; s.On = false; s.Listen = "" }),
		},
		"the environment overrides the file": {
			file: "port: 8\ndeep: {max-size: 1}\n", env: []string{"CHANDLER_PORT=9", "CHANDLER_DEEP_MAX_SIZE=5", "CHANDLER_CONTEXT=x", "PORT=1"},
			want: with(func(s *sample) { s.Port = 9; s.Deep.Max_Size = 5 }),
		},
		"flags override the environment": {
			env: []string{"CHANDLER_GRACE=1s"}, flags: map[string]string{"grace": "20s", "urls": "nats://a, nats://b", "on": "false"},
			want: with(func(s *sample) {
				s.Grace = events.Duration(20 * time.Second)
				s.URLs = []string{"nats://a", "nats://b"}
				s.On = false
			}),
		},
		"text that looks like a number stays as it was typed": {
			env: []string{"CHANDLER_SITE=2.10"}, want: with(func(s *sample) { s.Site = "2.10" }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			from := Sources{Environment: c.env, Flags: c.flags}
			if c.file != "" {
				from.File = write(t, c.file)
			}
			got := defaults
			if err := ReadConfig(&got, from); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		env   []string
		flags map[string]string
		want  []string
	}{
		"an unknown key, quoting its line":        {file: "port: 1\nprot: 2\n", want: []string{"prot: 2", "unknown field"}},
		"an unknown nested key, quoting its line": {file: "log:\n  levle: debug\n", want: []string{"levle: debug"}},
		"a key given twice":                       {file: "port: 1\nport: 2\n", want: []string{"port: 2", "already defined"}},
		"a value of the wrong kind":               {file: "port: many\n", want: []string{"port: many"}},
		"a second document":                       {file: "port: 1\n---\nport: 2\n", want: []string{"one YAML document"}},
		"a negative duration":                     {file: "grace: -1s\n", want: []string{"negative"}},
		"a wrong variable, by name":               {env: []string{"CHANDLER_PORT=many"}, want: []string{"CHANDLER_PORT"}},
		"a flag for no key":                       {flags: map[string]string{"prot": "1"}, want: []string{`"prot"`}},
	} {
		t.Run(name, func(t *testing.T) {
			from := Sources{Environment: c.env, Flags: c.flags}
			if c.file != "" {
				from.File = write(t, c.file)
			}
			err := ReadConfig(new(sample), from)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
		})
	}
	if err := ReadConfig(new(sample), Sources{File: filepath.Join(t.TempDir(), "absent.yaml")}); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("an absent file: %v", err)
	}
	if err := ReadConfig(new(sample), Sources{File: write(t, "listen: "+strings.Repeat("x", maxConfig))}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a file over the limit: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{"", "port: 1", "log: {level: x}\n---\n", "urls: [a, b]", "a: &a [*a]", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<10 {
			return
		}
		var once, again sample
		if ParseConfig(data, &once) == nil {
			if err := ParseConfig(data, &again); err != nil || !cmp.Equal(once, again) {
				t.Errorf("the same bytes gave %+v and %+v (%v)", once, again, err)
			}
		}
	})
}
