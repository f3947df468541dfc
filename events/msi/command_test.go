package msi

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMachineScopeCompletesTheCommand(t *testing.T) {
	one, two, perUser := "1", "2", Info{}
	machine := Info{AllUsers: &one}
	dual := Info{AllUsers: &two, MSIInstallPerUser: &one}
	tests := map[string]struct {
		info  Info
		args  []string
		added []string
	}{
		"adds ALLUSERS=1 when nothing sets a scope":       {perUser, []string{"msiexec", "/i", "a.msi", "/qn"}, []string{"ALLUSERS=1"}},
		"adds ALLUSERS=1 over an authored dual purpose":   {dual, []string{"msiexec", "/i", "a.msi"}, []string{"ALLUSERS=1"}},
		"adds nothing to a package authored per machine":  {machine, []string{"msiexec", "/i", "a.msi"}, nil},
		"adds ALLUSERS=1 when a transform may unset it":   {machine, []string{"msiexec", "/i", "a.msi", "TRANSFORMS=a.mst"}, []string{"ALLUSERS=1"}},
		"adds ALLUSERS=1 when a patch may unset it":       {machine, []string{"msiexec", "/i", "a.msi", "Patch=a.msp"}, []string{"ALLUSERS=1"}},
		"leaves ALLUSERS=1 alone":                         {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=1"}, nil},
		"leaves an explicit per-user installation alone":  {perUser, []string{"msiexec", "/i", "a.msi", `ALLUSERS=""`}, nil},
		"keeps ALLUSERS=2 and switches per-user off":      {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=2"}, []string{"MSIINSTALLPERUSER="}},
		"keeps a quoted ALLUSERS=2 too":                   {dual, []string{"msiexec", "/i", "a.msi", `ALLUSERS="2"`}, []string{"MSIINSTALLPERUSER="}},
		"leaves an explicit choice with ALLUSERS=2 alone": {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=2", "MSIINSTALLPERUSER=1"}, nil},
		"takes property names in any case":                {perUser, []string{"msiexec", "/i", "a.msi", "AllUsers=1"}, nil},
		"believes the last of two":                        {dual, []string{"msiexec", "/i", "a.msi", "ALLUSERS=1", "ALLUSERS=2"}, []string{"MSIINSTALLPERUSER="}},
		"is not misled by a property of a similar name":   {perUser, []string{"msiexec", "/i", "a.msi", "MYALLUSERS=1"}, []string{"ALLUSERS=1"}},
		"knows msiexec by its path, and /package":         {perUser, []string{`C:\Windows\System32\MsiExec.EXE`, "-Package", "a.msi"}, []string{"ALLUSERS=1"}},
		"knows an option with the package attached":       {perUser, []string{"msiexec", "/ia.msi"}, []string{"ALLUSERS=1"}},
		"leaves removal alone":                            {perUser, []string{"msiexec", "/x", "a.msi"}, nil},
		"leaves removal by property alone":                {perUser, []string{"msiexec", "/i", "a.msi", "REMOVE=all"}, nil},
		"completes what leaves a feature out":             {perUser, []string{"msiexec", "/i", "a.msi", "REMOVE=Help"}, []string{"ALLUSERS=1"}},
		"leaves patching alone":                           {perUser, []string{"msiexec", "/p", "a.msp"}, nil},
		"leaves repair alone":                             {perUser, []string{"msiexec", "/fa", "a.msi"}, nil},
		"leaves repair by property alone":                 {perUser, []string{"msiexec", "/i", "a.msi", "reinstall=ALL"}, nil},
		"leaves other programs alone":                     {perUser, []string{"setup.exe", "/i", "a.msi"}, nil},
		"leaves a program that only ends like msiexec":    {perUser, []string{"notmsiexec", "/i", "a.msi"}, nil},
		"leaves an empty command alone":                   {perUser, nil, nil},
		"does not stumble over an empty argument":         {perUser, []string{"msiexec", "", "/i", "a.msi"}, []string{"ALLUSERS=1"}},
		"completes what InstallCommand makes":             {perUser, InstallCommand("a.msi"), []string{"ALLUSERS=1"}},
		"leaves what UninstallCommand makes":              {perUser, UninstallCommand(sampleCode), nil},
		"leaves what RepairCommand makes":                 {perUser, RepairCommand("a.msi"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			given := slices.Clone(test.args)
			roomy := slices.Grow(given, 4)
			got := MachineScope(roomy, test.info)
			if diff := cmp.Diff(append(slices.Clone(test.args), test.added...), got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(got, MachineScope(got, test.info)); diff != "" {
				t.Errorf("completing twice changes it again:\n%s", diff)
			}
			if rest := roomy[len(roomy):cap(roomy)]; slices.ContainsFunc(rest, func(s string) bool { return s != "" }) {
				t.Errorf("wrote %q behind the caller's arguments", rest)
			}
		})
	}
}

func TestCommandsAreSilentWriteALogAndLeaveTheRestartToTheAgent(t *testing.T) {
	for name, c := range map[string]struct{ got, want []string }{
		"install":   {InstallCommand("a b.msi"), []string{"msiexec", "/i", "a b.msi", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart"}},
		"uninstall": {UninstallCommand(sampleCode), []string{"msiexec", "/x", sampleCode, "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart"}},
		"repair":    {RepairCommand("a.msi"), []string{"msiexec", "/i", "a.msi", "/l*v", "%CHANDLER_LOG%", "/qn", "/norestart", "REINSTALL=ALL", "REINSTALLMODE=vamus"}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTheLogOptionGoesBehindThePackage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		at   int // 0: none
	}{
		"before the properties":                {[]string{"msiexec", "/i", "a.msi", "ALLUSERS=", "/qn"}, 3},
		"behind a package in the same word":    {[]string{"msiexec", "/qn", "/ia.msi", "ALLUSERS="}, 3},
		"behind /package":                      {[]string{"MSIEXEC.EXE", "-package", "a.msi"}, 3},
		"at the end where the package is away": {[]string{"msiexec", "/i"}, 2},
		"not beside a log of its own":          {[]string{"msiexec", "/i", "a.msi", "/L*vx", "a.log"}, 0},
		"not beside a log in the long form":    {[]string{"msiexec", "/i", "a.msi", "/log", "a.log"}, 0},
		"not for removal":                      {[]string{"msiexec", "/x", "a.msi"}, 0},
		"not for other programs":               {[]string{"setup", "/i", "a.msi"}, 0},
		"not twice":                            {InstallCommand("a.msi"), 0},
	} {
		if at, ok := LogPosition(c.args); at != c.at || ok != (c.at > 0) {
			t.Errorf("%s: %d, %v; want %d", name, at, ok, c.at)
		}
	}
	if LogOption()[1] != LogPath {
		t.Errorf("the option is %q", LogOption())
	}
}

func TestWhereAnInstallationLands(t *testing.T) {
	one, two, odd := "1", "2", "0"
	dual := Info{AllUsers: &two, MSIInstallPerUser: &one}
	for name, c := range map[string]struct {
		info Info
		set  []string
		want Landing
	}{
		"nothing is said: with the caller":             {Info{}, nil, ForCaller},
		"made for the machine":                         {Info{AllUsers: &one}, nil, ForMachine},
		"made for the machine, told otherwise":         {Info{AllUsers: &one}, []string{"ALLUSERS="}, ForCaller},
		"made for both, that is for the caller":        {dual, nil, ForCaller},
		"made for both, as the original has it":        {dual, []string{"ALLUSERS=2"}, ForCaller},
		"made for both, and switched":                  {dual, []string{"ALLUSERS=2", "MSIINSTALLPERUSER="}, ForMachine},
		"made for both, told for the machine":          {dual, []string{"ALLUSERS=1"}, ForMachine},
		"by the rights of an administrator":            {Info{}, []string{"ALLUSERS=2"}, ForMachine},
		"a transform may change it":                    {Info{AllUsers: &one}, []string{"TRANSFORMS=a.mst"}, Unsure},
		"a transform cannot change what is said":       {Info{}, []string{"TRANSFORMS=a.mst", "ALLUSERS=1"}, ForMachine},
		"a transform may change the other property":    {Info{}, []string{"PATCH=a.msp", "ALLUSERS=2"}, Unsure},
		"a value that nobody documents":                {Info{AllUsers: &odd}, nil, Unsure},
		"a value that nobody documents, in a property": {Info{}, []string{"ALLUSERS=yes"}, Unsure},
	} {
		if got := Lands(append([]string{"msiexec", "/i", "a.msi"}, c.set...), c.info); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestWhatIsCompletedLandsOnTheMachine goes through every value that can be authored and given: unless the command chooses
// for itself, the completed one is for the machine.
func TestWhatIsCompletedLandsOnTheMachine(t *testing.T) {
	values := []*string{nil, new(""), new("1"), new("2")}
	for _, allUsers := range values {
		for _, perUser := range values {
			for _, set := range [][]string{nil, {"ALLUSERS=1"}, {"ALLUSERS=2"}, {"TRANSFORMS=a.mst"}, {"PATCH=a.msp", "ALLUSERS=2"}} {
				info := Info{AllUsers: allUsers, MSIInstallPerUser: perUser}
				args := MachineScope(append(InstallCommand("a.msi"), set...), info)
				if got := Lands(args, info); got != ForMachine {
					t.Errorf("%q of %v, %v lands %s", args, allUsers, perUser, got)
				}
			}
		}
	}
}
