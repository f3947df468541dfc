package publish

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
)

func TestACommandThatIsAnAddressBecomesAFile(t *testing.T) {
	sample, err := os.ReadFile(sampleMSI)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"smb://files/apps/setup.exe": "program", "smb://files/apps/x86/setup.exe": "32", "smb://files/apps/x64/setup.exe": "64", "smb://files/apps/my%20setup.exe": "spaced",
		"smb://files/apps/setup.msi": string(sample), "https://files.example/dl/setup.exe": "another", "smb://files/hello/setup.exe": "below", "smb://files/hello/tool.exe": "tool",
	}
	file := func(path, source string) events.File { return pinned(path, all[source], source) }
	below := func(path string) events.File { return pinned(path, all["smb://files/hello/"+path], "") }
	for name, c := range map[string]struct {
		source   string // line
		programs []string
		files    []events.File
		commands []string
	}{
		"in a list":      {"", []string{`['\\FILES\apps\setup.exe', /S]`}, []events.File{file("setup.exe", "smb://files/apps/setup.exe")}, []string{`["setup.exe" "/S"]`}},
		"as smb":         {"", []string{`['smb://files/apps/setup.exe', /S]`}, []events.File{file("setup.exe", "smb://files/apps/setup.exe")}, []string{`["setup.exe" "/S"]`}},
		"as https":       {"", []string{`[https://files.example/dl/setup.exe]`}, []events.File{file("setup.exe", "https://files.example/dl/setup.exe")}, []string{`["setup.exe"]`}},
		"in a line":      {"", []string{`'\\files\apps\setup.exe  /S "a b"'`}, []events.File{file("setup.exe", "smb://files/apps/setup.exe")}, []string{`setup.exe  /S "a b"`}},
		"with blanks":    {"", []string{`'"\\files\apps\my setup.exe" /S'`}, []events.File{file("my setup.exe", "smb://files/apps/my%20setup.exe")}, []string{`"my setup.exe" /S`}},
		"for a shell":    {"", []string{`'\\files\apps\setup.exe /S', shell: cmd`}, nil, []string{`\\files\apps\setup.exe /S`}},
		"on the machine": {"", []string{`['\\?\C:\setup.exe']`, `['C:\setup.exe']`}, nil, []string{`["\\\\?\\C:\\setup.exe"]`, `["C:\\setup.exe"]`}},
		"as an argument": {"", []string{`[sh, '\\files\apps\setup.exe']`}, nil, []string{`["sh" "\\\\files\\apps\\setup.exe"]`}},
		"of two programs": {"", []string{`['\\files\apps\setup.exe', /S]`, `'\\FILES\apps\setup.exe /U'`},
			[]events.File{file("setup.exe", "smb://files/apps/setup.exe")}, []string{`["setup.exe" "/S"]`, `setup.exe /U`}},
		"of two programs in other letters": {"", []string{`['\\files\apps\setup.exe', /S]`, `'\\files\APPS\Setup.exe /U'`},
			[]events.File{file("setup.exe", "smb://files/apps/setup.exe")}, []string{`["setup.exe" "/S"]`, `setup.exe /U`}},
		"with one name": {"", []string{`['\\files\apps\x86\setup.exe']`, `['\\files\apps\x64\setup.exe']`},
			[]events.File{file("x64/setup.exe", "smb://files/apps/x64/setup.exe"), file("x86/setup.exe", "smb://files/apps/x86/setup.exe")}, []string{`["x86/setup.exe"]`, `["x64/setup.exe"]`}},
		"below the source": {"source: smb://files/hello\n", []string{`['\\files\Hello\SETUP.exe']`, `['\\files\apps\setup.exe']`},
			[]events.File{file("apps/setup.exe", "smb://files/apps/setup.exe"), below("setup.exe"), below("tool.exe")}, []string{`["setup.exe"]`, `["apps/setup.exe"]`}},
		"below the source, and not listed": {"source: smb://files/hello\nfiles: [tool.exe]\n", []string{`['\\files\hello\setup.exe']`},
			[]events.File{below("setup.exe"), below("tool.exe")}, []string{`["setup.exe"]`}},
		"an .msi in a list": {"", []string{`[msiexec, /i, '\\files\apps\setup.msi'], msi-scope: machine`}, []events.File{file("setup.msi", "smb://files/apps/setup.msi")},
			[]string{`["msiexec" "/i" "setup.msi" "/l*v" "%CHANDLER_LOG%" "ALLUSERS=1"]`}},
		"an .msi in a line": {"", []string{`'msiexec /i "\\files\apps\setup.msi" /qn'`, `'msiexec.exe /x \\files\apps\setup.msi', undoes: a`}, []events.File{file("setup.msi", "smb://files/apps/setup.msi")},
			[]string{`msiexec /i setup.msi /l*v %CHANDLER_LOG% /qn ALLUSERS=1`, `msiexec.exe /x setup.msi`}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := c.source + "programs:\n"
			for i, p := range c.programs {
				lines += fmt.Sprintf("  %c: {command: %s, run: administrative, installation-account: corp}\n", 'a'+i, p)
			}
			s := &shelf{files: all}
			p := read(t, outer(t, lines), outsideOptions(s))
			if diff := cmp.Diff(c.files, p.Manifest.Files, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			for i, want := range c.commands {
				if got := p.Manifest.Programs[string(rune('a'+i))].Command.String(); got != want {
					t.Errorf("command %s, want %s", got, want)
				}
			}
			for _, f := range c.files {
				if f.Source != "" && !slices.ContainsFunc(p.Notes, func(n string) bool {
					return strings.Contains(n, "its command names "+f.Path+" now, which is read from "+resource.Shown(f.Source))
				}) {
					t.Errorf("nobody is told of %s: %q", f.Path, p.Notes)
				}
			}
			if s.open != 0 || len(p.Blobs) != 1 {
				t.Errorf("%d files were left open, to be uploaded %+v", s.open, p.Blobs)
			}
			for _, f := range c.files {
				if got := manifest.Address(p.Manifest, f); got == "" {
					t.Errorf("%s has no address", f.Path)
				}
			}
			if strings.Contains(c.commands[0], "msi") && p.Manifest.Programs["a"].Product != sampleProduct {
				t.Error("the product is not known")
			}
		})
	}
}

func TestACommandBesideFilesOfThePackageTakesAnotherPath(t *testing.T) {
	dir := outer(t, "programs: {p: {command: ['\\\\files\\apps\\setup.exe'], run: user}}\n")
	write(t, dir, "Setup.exe", "the package's own")
	p := read(t, dir, outsideOptions(&shelf{files: map[string]string{"smb://files/apps/setup.exe": "program"}}))
	want := []string{"Setup.exe ", "apps/setup.exe smb://files/apps/setup.exe"}
	var got []string
	for _, f := range p.Manifest.Files {
		got = append(got, f.Path+" "+f.Source)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(p.Blobs) != 2 || p.Manifest.Programs["p"].Command.Argv[0] != "apps/setup.exe" {
		t.Errorf("blobs %+v", p.Blobs)
	}
}

// Whatever a line is: what names a file outside names the package's file afterwards, and all else is as it was.
func FuzzRewrite(f *testing.F) {
	for _, line := range []string{`\\files\apps\setup.exe /S`, `"\\files\my apps\a b.exe" "x y"z`, `msiexec /i "\\files\a\x.msi" /l a`, ` smb://f/a/b%20c 'x'`, `msiexec /p https://f/x.msp A="\\f\b"`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if len(line) > 4<<10 {
			return
		}
		p := events.Program{Command: events.Command{Line: line}}
		mentions, err := mentioned("p", p)
		if err != nil || place(mentions, events.Manifest{}, []found{{File: events.File{Path: "x.msi"}}}) != nil {
			return
		}
		before := words(p.Command)
		for _, x := range slices.Backward(mentions) {
			if rewrite(&p.Command, x) != nil {
				return
			}
			before[x.word] = x.path
			if x.word > 0 {
				before[x.word] = strings.ReplaceAll(x.path, "/", `\`)
			}
		}
		if diff := cmp.Diff(before, words(p.Command)); diff != "" {
			t.Errorf("%q became %q: %s", line, p.Command.Line, diff)
		}
	})
}
