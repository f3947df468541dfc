package publish

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

// The sample is authored for both, ALLUSERS=2 and MSIINSTALLPERUSER=1: for the user, unless it is told otherwise.
const (
	sampleMSI     = "../../../events/msi/testdata/sample.msi"
	sampleProduct = "{7B1B7F5E-3C1D-4D2C-9E0E-5A6B7C8D9E0F}"
)

// msiDirectory is a package of one program in YAML, between braces, and app/setup.msi.
func msiDirectory(t *testing.T, program, msi string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, SpecName, "api: chandler/v1\npackage: hello\nversion: \"1\"\nprograms:\n  main: {"+program+"}\n  other: {command: [echo], run: administrative}\n")
	write(t, dir, "app/setup.msi", msi)
	return dir
}

func TestAnMSIOfADirectoryIsCompleted(t *testing.T) {
	sample, err := os.ReadFile(sampleMSI)
	if err != nil {
		t.Fatal(err)
	}
	const (
		log    = "/l*v %CHANDLER_LOG% was added to its command"
		scope  = "so that it installs for the whole machine and not for the system account alone"
		found  = "it is detected by the product code " + sampleProduct
		nobody = "for the account that runs it alone, where no user sees it"
	)
	detected := []events.Detect{{MSI: sampleProduct, Version: ">= 2.10.3"}}
	for name, c := range map[string]struct {
		program, command, scope string
		product                 bool
		detect                  []events.Detect
		notes                   []string // each a part of one
	}{
		"a list": {`command: [msiexec, /i, app\setup.msi, /qn], run: administrative`,
			`["msiexec" "/i" "app\\setup.msi" "/l*v" "%CHANDLER_LOG%" "/qn" "ALLUSERS=1"]`, "machine", true, detected, []string{"ALLUSERS=1 was added to its command, " + scope, log, found}},
		"a line": {`command: 'msiexec /i "app\setup.msi" /qn', run: administrative`,
			`msiexec /i "app\setup.msi" /l*v %CHANDLER_LOG% /qn ALLUSERS=1`, "machine", true, detected, []string{scope, log, found}},
		"the original's switch in a list": {`command: [msiexec, /i, app/setup.msi, ALLUSERS=2], run: administrative`,
			`["msiexec" "/i" "app/setup.msi" "/l*v" "%CHANDLER_LOG%" "ALLUSERS=2" "MSIINSTALLPERUSER="]`, "machine", true, detected, []string{scope, log, found}},
		"the original's switch in a line": {`command: msiexec /i app\setup.msi ALLUSERS=2, run: administrative`,
			`msiexec /i app\setup.msi /l*v %CHANDLER_LOG% ALLUSERS=2 MSIINSTALLPERUSER=""`, "machine", true, detected, []string{scope, log, found}},
		"said already": {`command: msiexec /i app\setup.msi ALLUSERS=1, run: administrative, msi-scope: machine`,
			`msiexec /i app\setup.msi /l*v %CHANDLER_LOG% ALLUSERS=1`, "machine", true, detected, []string{log, found}},
		"said already, the newer way": {`command: 'msiexec /i app\setup.msi ALLUSERS=2 MSIINSTALLPERUSER=""', run: administrative`,
			`msiexec /i app\setup.msi /l*v %CHANDLER_LOG% ALLUSERS=2 MSIINSTALLPERUSER=""`, "machine", true, detected, []string{log, found}},
		"a log and a detection of its own": {`command: msiexec /i app\setup.msi /L*v c:\a.log ALLUSERS=1, run: administrative, detect: [{file: 'c:\a.exe'}]`,
			`msiexec /i app\setup.msi /L*v c:\a.log ALLUSERS=1`, "machine", true, []events.Detect{{File: `c:\a.exe`}}, nil},
		"the command's own choice of the account": {`command: 'msiexec /i app\setup.msi ALLUSERS=""', run: administrative`,
			`msiexec /i app\setup.msi ALLUSERS=""`, "as-authored", true, detected, []string{"its command says itself for whom it installs, which is " + nobody, found}},
		"as it was authored": {`command: [msiexec, /i, app/setup.msi], run: administrative, msi-scope: as-authored`,
			`["msiexec" "/i" "app/setup.msi"]`, "as-authored", true, detected, []string{"left as it is and installs " + nobody, found}},
		"as it was authored, with a transform": {`command: [msiexec, /i, app/setup.msi, TRANSFORMS=a], run: administrative, msi-scope: as-authored`,
			`["msiexec" "/i" "app/setup.msi" "TRANSFORMS=a"]`, "as-authored", true, detected, []string{"cannot be told here", found}},
		"a user's": {`command: msiexec /i app\setup.msi, run: user`,
			`msiexec /i app\setup.msi /l*v %CHANDLER_LOG%`, "", true, nil, []string{log, "it has no detection"}},
		"a user's for the machine": {`command: msiexec /i app\setup.msi ALLUSERS=1, run: user`,
			`msiexec /i app\setup.msi /l*v %CHANDLER_LOG% ALLUSERS=1`, "", true, detected, []string{log, found, "needs more rights"}},
		"a repair": {`command: msiexec /i app\setup.msi REINSTALL=ALL, run: administrative`,
			`msiexec /i app\setup.msi REINSTALL=ALL`, "", false, nil, nil},
		"a removal": {`command: msiexec /x app\setup.msi, run: administrative, undoes: other`, `msiexec /x app\setup.msi`, "", false, nil, nil},
		"an installation that undoes another": {`command: msiexec /i app\setup.msi /l a ALLUSERS=1, run: administrative, undoes: other`,
			`msiexec /i app\setup.msi /l a ALLUSERS=1`, "machine", true, nil, nil},
		"something else with the file": {`command: [copy, app/setup.msi], run: administrative`, `["copy" "app/setup.msi"]`, "", false, nil, nil},
		"for a shell": {`command: start /wait MSIEXEC /i .\app\setup.msi, shell: cmd, run: administrative`,
			`start /wait MSIEXEC /i .\app\setup.msi`, "", true, nil, []string{"a command for a shell is not completed: if it installs app/setup.msi, say ALLUSERS=1"}},
		"for a shell, as it was authored": {`command: msiexec /i 'app\setup.msi', shell: powershell, run: administrative, msi-scope: as-authored`,
			`msiexec /i 'app\setup.msi'`, "as-authored", true, nil, nil},
		"for a shell, by somebody else": {`command: copy app\setup.msi c:\, shell: cmd, run: administrative`, `copy app\setup.msi c:\`, "", false, nil, nil},
		"a file that is elsewhere": {`command: msiexec /i c:\apps\other.msi, run: administrative`,
			`msiexec /i c:\apps\other.msi`, "", false, nil, []string{"is not in the package, so that its command is not completed"}},
		"a file that is elsewhere, for the machine": {`command: msiexec /i c:\apps\other.msi, run: administrative, msi-scope: machine`,
			`msiexec /i c:\apps\other.msi /l*v %CHANDLER_LOG% ALLUSERS=1`, "machine", false, nil, []string{scope, log}},
		"a file that is elsewhere, and a switch": {`command: msiexec /i c:\apps\other.msi ALLUSERS=1, run: administrative`,
			`msiexec /i c:\apps\other.msi ALLUSERS=1`, "", false, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			plan := read(t, msiDirectory(t, c.program, string(sample)), options())
			p := plan.Manifest.Programs["main"]
			if got := p.Command.String(); got != c.command {
				t.Errorf("command %s, want %s", got, c.command)
			}
			if p.MSIScope != c.scope || (p.Product == sampleProduct) != c.product || !c.product && p.Product != "" {
				t.Errorf("scope %q, product %q", p.MSIScope, p.Product)
			}
			if diff := cmp.Diff(c.detect, p.Detect); diff != "" {
				t.Error(diff)
			}
			if len(plan.Notes) != len(c.notes) {
				t.Errorf("notes %q", plan.Notes)
			}
			for i, want := range c.notes {
				if i < len(plan.Notes) && !(strings.HasPrefix(plan.Notes[i], "program main: ") && strings.Contains(plan.Notes[i], want)) {
					t.Errorf("note %q, want %q", plan.Notes[i], want)
				}
			}
		})
	}
}

func TestAnMSIWhoseProgramContradictsItselfIsRefused(t *testing.T) {
	sample, err := os.ReadFile(sampleMSI)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ program, msi, want string }{
		"a file that is no .msi":             {`command: msiexec /i app\setup.msi, run: administrative`, "text", "it installs app/setup.msi: open installer database"},
		"the same for a shell":               {`command: msiexec /i app\setup.msi, shell: cmd, run: administrative`, "text", "its command names app/setup.msi: open installer database"},
		"for the machine and for nobody":     {`command: msiexec /i app\setup.msi ALLUSERS="", run: administrative, msi-scope: machine`, string(sample), "take one of them away"},
		"for the machine and for the caller": {`command: msiexec /i app\setup.msi ALLUSERS=2 MSIINSTALLPERUSER=1, run: administrative, msi-scope: machine`, string(sample), "take one of them away"},
		"for the machine, by a user":         {`command: msiexec /i app\setup.msi, run: user, msi-scope: machine`, string(sample), "use run: administrative"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(t.Context(), msiDirectory(t, c.program, c.msi), options())
			if err == nil || !strings.Contains(err.Error(), "program main: ") || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), SpecName+":5:") {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestAnMSIFileBringsItsRepairAndItsRemoval(t *testing.T) {
	o := options()
	o.Run = events.RunAdministrative
	programs := read(t, sample(t, sampleMSI, "x.msi"), o).Manifest.Programs
	if p := programs["install"]; p.MSIScope != events.MSIScopeMachine || p.Product != sampleProduct {
		t.Errorf("install: scope %q, product %q", p.MSIScope, p.Product)
	}
	repair := programs["repair"]
	if diff := cmp.Diff([]string{"msiexec", "/i", "x.msi", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart", "REINSTALL=ALL", "REINSTALLMODE=vamus"}, repair.Command.Argv); diff != "" {
		t.Error(diff)
	}
	if repair.Detect != nil || repair.Undoes != "" || repair.Repairs != "install" || repair.Run != o.Run || repair.AppliesIf == "" {
		t.Errorf("repair: %+v", repair)
	}
	if remove := programs["remove"]; remove.Undoes != "install" || remove.ReturnCodes[1605] != "success" {
		t.Errorf("remove: %+v", remove)
	}
}
