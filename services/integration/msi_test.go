package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/events"
	"chandler/events/msi"
	"chandler/services/content/publish"
	"chandler/services/integration/winetest"
)

// The packages of these tests differ in what their author says of for whom they are.
var authored = map[string]string{
	"for both":        `<Property Id="ALLUSERS" Value="2"/><Property Id="MSIINSTALLPERUSER" Value="1"/>`,
	"for the machine": `<Property Id="ALLUSERS" Value="1"/>`,
	"for the user":    ``,
}

// switches are the words that administrators put behind a package; the second is how the original has it.
var switches = []string{"", "ALLUSERS=2", "ALLUSERS=1", `ALLUSERS=2 MSIINSTALLPERUSER=""`}

const (
	testProduct = "{6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E11}"
	testPacked  = "E0D9C1F6A0B385C4B975D0F6B2A1E711"
	testKey     = `Software\ChandlerTest`
	testFile    = "testdata/readme.txt"
)

// testMSI makes a package with a registry value where it lands, and a file.
func testMSI(t *testing.T, properties string) string {
	t.Helper()
	return winetest.BuildMSI(t, `<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="`+testProduct+`" Name="Test" Language="1033" Version="1.2.3" Manufacturer="Example" UpgradeCode="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E12">
    <Package InstallerVersion="500" Compressed="yes"/>
    <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>`+properties+`
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="CommonAppDataFolder"><Directory Id="INSTALLDIR" Name="ChandlerTest">
        <Component Id="file" Guid="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E13" Win64="yes"><File Id="readme" Source="`+testFile+`" KeyPath="yes"/></Component>
        <Component Id="value" Guid="6F1C9D0E-3B0A-4C58-9B57-0D6F2B1A7E14" Win64="yes">
          <RegistryValue Root="HKMU" Key="`+testKey+`" Name="here" Type="string" Value="yes" KeyPath="yes"/>
        </Component>
      </Directory></Directory>
    </Directory>
    <Feature Id="all" Level="1"><ComponentRef Id="file"/><ComponentRef Id="value"/></Feature>
  </Product>
</Wix>
`)
}

// msiMachine is a machine with the parts of the agent that run a program.
type msiMachine struct {
	t     *testing.T
	wine  *winetest.Prefix
	probe string
	runs  int
}

// probed is what the probe answers; see testdata/msiprobe.
type probed struct {
	Code        int
	Meaning     execute.Meaning
	Error       string
	Log         bool
	Explanation string
	Lines       []string
	Detected    string
	OwnProfile  bool
}

func newMSIMachine(t *testing.T) *msiMachine {
	t.Helper()
	wine := winetest.New(t)
	return &msiMachine{t: t, wine: wine, probe: winetest.Build(t, "chandler/services/integration/testdata/msiprobe")}
}

// run runs a program of the package in a copy of its directory, as the agent does, or nothing for no program.
func (m *msiMachine) run(content string, p events.Program) probed {
	m.t.Helper()
	m.runs++
	question := map[string]any{"Product": testProduct}
	if !p.Command.Empty() {
		own := filepath.Join(m.t.TempDir(), "content") // gone before the next: what a program installs cannot count on it
		must(m.t, os.CopyFS(own, os.DirFS(content)))
		defer func() { must(m.t, os.RemoveAll(own)) }()
		question["Dir"], question["Content"], question["Program"] = fmt.Sprintf(`C:\run%d`, m.runs), winetest.Path(own), p
	}
	input, err := json.Marshal(question)
	must(m.t, err)
	cmd := m.wine.Command(m.probe)
	cmd.Stdin = bytes.NewReader(input)
	var errs strings.Builder
	cmd.Stderr = &errs
	output, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("probe: %v\n%s", err, errs.String())
	}
	var a probed
	must(m.t, json.Unmarshal(output, &a))
	return a
}

// look says where the product and its value are, and that the probe says the same.
func (m *msiMachine) look() (there []msi.Landing) {
	m.t.Helper()
	for landing, c := range map[msi.Landing]struct{ hive, registered string }{
		msi.ForMachine: {"HKLM", `HKLM\Software\Classes\Installer\Products\`},
		msi.ForCaller:  {"HKCU", `HKCU\Software\Microsoft\Installer\Products\`},
	} {
		_, value := m.wine.Registry(c.hive+`\`+testKey, "here")
		if registered := m.wine.HasKey(c.registered + testPacked); registered != value {
			m.t.Errorf("%s: the product is registered: %v, its value is there: %v", c.hive, registered, value)
		}
		if value {
			there = append(there, landing)
		}
	}
	slices.Sort(there)
	return there
}

func readPackage(t *testing.T, path string, run events.RunMode) *publish.Plan {
	t.Helper()
	plan, err := publish.Read(t.Context(), path, publish.Options{Run: run})
	must(t, err)
	return plan
}

// packageOf is a package directory with the .msi, whose program installs it with the given words behind the package.
func packageOf(t *testing.T, file, words, scope string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "test.msi"), data, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, publish.SpecName), []byte("api: chandler/v1\npackage: test\nversion: \"1\"\nprograms:\n  install:\n    command: '"+
		strings.TrimSpace(`msiexec /i test.msi /qn `+words)+"'\n    run: administrative\n    msi-scope: "+scope+"\n"), 0o600))
	return dir
}

func TestAnMSILandsOnTheMachineWhateverItsAuthorAndItsSwitchesSay(t *testing.T) {
	t.Parallel()
	for name, properties := range authored {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, m := testMSI(t, properties), newMSIMachine(t)
			for _, words := range switches {
				dir := packageOf(t, file, words, events.MSIScopeMachine)
				m.installs(dir, readPackage(t, dir, "").Manifest.Programs["install"], msi.ForMachine)
				m.removes(dir)
			}
		})
	}
}

func TestAnMSIAsAuthoredMayLandInTheProfileOfTheAccountThatRunsIt(t *testing.T) {
	t.Parallel()
	for name, properties := range authored {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, m := testMSI(t, properties), newMSIMachine(t)
			for _, words := range switches {
				dir := packageOf(t, file, words, events.MSIScopeAsAuthored)
				plan := readPackage(t, dir, "")
				want := msi.ForMachine
				if notes := strings.Join(plan.Notes, "\n"); strings.Contains(notes, "for the account that runs it alone") {
					want = msi.ForCaller
				} else if !strings.Contains(notes, "installs for the whole machine") {
					t.Errorf("notes %q", notes)
				}
				if name == "for both" && words != "ALLUSERS=1" {
					want = msi.ForMachine // Wine has the rule of Windows Installer 4.5, to which MSIINSTALLPERUSER means nothing
				}
				m.installs(dir, plan.Manifest.Programs["install"], want)
				m.removes(dir)
			}
		})
	}
}

// installs runs the program on a machine without the product and asserts where it is afterwards.
func (m *msiMachine) installs(dir string, p events.Program, want msi.Landing) {
	m.t.Helper()
	if before := m.run("", events.Program{}); before.Detected != "not installed" || before.OwnProfile || len(m.look()) > 0 {
		m.t.Fatalf("before: %+v, product for %v", before, m.look())
	}
	a := m.run(dir, p)
	if a.Meaning != execute.Success || a.Explanation != "" {
		m.t.Fatalf("%s: %+v", p.Command, a)
	}
	if got := m.look(); !slices.Equal(got, []msi.Landing{want}) {
		m.t.Fatalf("%s landed for %v, want %s", p.Command, got, want)
	}
	detected := map[msi.Landing]string{msi.ForMachine: "installed", msi.ForCaller: "unknown"}[want]
	if a.OwnProfile != (want == msi.ForCaller) || a.Detected != detected {
		m.t.Errorf("%s landed for the %s: in the own profile %v, %s", p.Command, want, a.OwnProfile, a.Detected)
	}
}

// removes runs the removal that the file in the directory brings when it is published by itself.
func (m *msiMachine) removes(dir string) {
	m.t.Helper()
	programs := readPackage(m.t, filepath.Join(dir, "test.msi"), events.RunAdministrative).Manifest.Programs
	if a := m.run(dir, programs["remove"]); a.Meaning != execute.Success || a.Detected != "not installed" || a.OwnProfile {
		m.t.Fatalf("%s: %+v", programs["remove"].Command, a)
	}
	if there := m.look(); len(there) > 0 {
		m.t.Fatalf("after the removal it is there for %v", there)
	}
}

func TestAnMSIFileIsInstalledRepairedAndRemovedByTheProgramsItBrings(t *testing.T) {
	t.Parallel()
	dir := packageOf(t, testMSI(t, authored["for both"]), "", events.MSIScopeMachine)
	m := newMSIMachine(t)
	programs := readPackage(t, filepath.Join(dir, "test.msi"), events.RunAdministrative).Manifest.Programs
	if names := slices.Sorted(maps.Keys(programs)); !slices.Equal(names, []string{"install", "remove", "repair"}) {
		t.Fatalf("programs %q", names)
	}
	m.installs(dir, programs["install"], msi.ForMachine)
	readme := m.wine.Unix(`C:\ProgramData\ChandlerTest\readme.txt`)
	must(t, os.WriteFile(readme, []byte("spoilt"), 0o600))
	m.wine.Exec("reg", "add", `HKLM\`+testKey, "/v", "here", "/d", "spoilt", "/f")
	if a := m.run(dir, programs["repair"]); a.Meaning != execute.Success || a.Detected != "installed" {
		t.Errorf("%s: %+v", programs["repair"].Command, a)
	}
	want, err := os.ReadFile(testFile)
	must(t, err)
	got, err := os.ReadFile(readme)
	if value, _ := m.wine.Registry(`HKLM\`+testKey, "here"); value != "yes" || !bytes.Equal(got, want) || err != nil {
		t.Errorf("after the repair: value %q, file %q, %v", value, got, err)
	}
	m.removes(dir)
	a := m.run(dir, programs["remove"])
	if a.Meaning != execute.Success || a.Code != 1605 {
		t.Errorf("removal of what is not there: %+v", a)
	}
}

func TestAProgramsOwnLogIsFound(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(t, err)
	executor, err := execute.New(execute.Options{Supervisor: []string{self, "supervise"}, Runners: map[string]execute.Runner{"system": systemrunner.New()}})
	must(t, err)
	for name, c := range map[string]struct {
		command execute.Command
		want    string // what the log holds; "": there is none
	}{
		"by an argument":      {execute.Command{Argv: []string{"cp", "hello", execute.LogPlaceholder}}, "hello"},
		"by a word of a line": {execute.Command{Line: `cp hello "%CHANDLER_LOG%"`}, "hello"},
		"by the environment":  {execute.Command{Line: `cp hello "$CHANDLER_LOG"`, Shell: execute.Sh}, "hello"},
		"none":                {execute.Command{Argv: []string{"true"}}, ""},
		"an empty one":        {execute.Command{Argv: []string{"touch", execute.LogPlaceholder}}, ""},
		"a link":              {execute.Command{Line: `ln -s "$PWD/hello" "$CHANDLER_LOG"`, Shell: execute.Sh}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			content := t.TempDir()
			must(t, os.WriteFile(filepath.Join(content, "hello"), []byte("hello"), 0o600))
			req := execute.Request{Job: "job", Attempt: 1, As: "system", Dir: filepath.Join(t.TempDir(), "run"), ContentDir: content, Command: c.command}
			x, err := executor.Start(t.Context(), req)
			must(t, err)
			_, err = x.Wait(t.Context())
			must(t, err)
			x, err = executor.Resume(req.Dir) // an agent that was restarted finds it too
			must(t, err)
			result, err := x.Wait(t.Context())
			must(t, err)
			if result.Meaning != execute.Success || (result.LogPath != "") != (c.want != "") {
				t.Fatalf("%+v", result)
			}
			if c.want == "" {
				return
			}
			if data, err := os.ReadFile(result.LogPath); string(data) != c.want || err != nil {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

func TestTheExitCodesOfMSIExecAndItsLogReachTheAgent(t *testing.T) {
	t.Parallel()
	m := newMSIMachine(t)
	dir := packageOf(t, testMSI(t, ""), "", events.MSIScopeMachine)
	data, err := os.ReadFile(m.probe)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "msiexec.exe"), data, 0o600)) // a program of the package goes before the system's
	p := readPackage(t, dir, "").Manifest.Programs["install"]
	line := p.Command.Line
	for _, c := range []struct {
		code    int
		meaning execute.Meaning
		want    string
	}{
		{0, execute.Success, ""},
		{1603, execute.Failure, `Windows Installer stopped in InstallFiles: Error 1304: Error writing to file: C:\Program Files\Example\a.dll`},
		{1618, execute.Retry, "Windows Installer ended with 1618"},
		{1619, execute.Failure, "Windows Installer ended with 1619"},
		{1641, execute.HardReboot, ""},
		{3010, execute.SoftReboot, ""},
	} {
		for name, command := range map[string]events.Command{
			"a line": {Line: fmt.Sprintf("%s EXIT=%d", line, c.code)},
			"a list": {Argv: append(strings.Fields(line), fmt.Sprintf("EXIT=%d", c.code))},
		} {
			p.Command = command
			a := m.run(dir, p)
			if a.Code != c.code || a.Meaning != c.meaning || !a.Log || a.Explanation != c.want || len(a.Lines) == 0 || !strings.HasPrefix(a.Lines[0], "=== Verbose logging started") {
				t.Errorf("%d by %s: %+v", c.code, name, a)
			}
		}
	}
}
