package msi

import (
	"slices"
	"strings"
)

// LogPath is the argument that the agent replaces by the path of a log file of the run's own, in every command.
const LogPath = "%CHANDLER_LOG%"

// InstallCommand installs the package in file silently, with a log, leaving a restart to the agent.
func InstallCommand(file string) []string {
	return []string{"msiexec", "/i", file, "/l*v", LogPath, "/qn", "/norestart"}
}

// UninstallCommand removes the product with that code silently, with a log, leaving a restart to the agent.
func UninstallCommand(productCode string) []string {
	return []string{"msiexec", "/x", productCode, "/l*v", LogPath, "/qn", "/norestart"}
}

// RepairCommand writes everything of an installed product again: all files, registry values and shortcuts. It is what
// /f does with these letters. By the product's code alone that fails for want of a source, since the copy that the
// product was installed from went with that run; v makes the package in file the source.
func RepairCommand(file string) []string {
	return []string{"msiexec", "/i", file, "/l*v", LogPath, "/qn", "/norestart", "REINSTALL=ALL", "REINSTALLMODE=vamus"}
}

// Landing says for whom an installation is.
type Landing string

// Where installations land. Unsure where a transform or a patch may change what was authored, or ALLUSERS has a value
// that Windows Installer does not document.
const (
	ForMachine Landing = "machine"
	ForCaller  Landing = "caller" // in the profile of the account that runs it
	Unsure     Landing = "unsure"
)

// Lands says where the installation of the package info by the command line args, program first, lands when it is run with
// an administrator's rights on Windows Installer 5.0 or later (domain-facts §3.1). args must be an installation (Installs).
func Lands(args []string, info Info) Landing {
	scope, sure := effective(args, "ALLUSERS", info.AllUsers)
	switch {
	case !sure:
		return Unsure
	case scope == "":
		return ForCaller
	case scope == "1":
		return ForMachine
	case scope != "2":
		return Unsure
	}
	perUser, sure := effective(args, "MSIINSTALLPERUSER", info.MSIInstallPerUser)
	switch {
	case !sure:
		return Unsure
	case perUser == "1":
		return ForCaller
	}
	return ForMachine
}

// effective is the value that a property has during the installation; sure is false where that is not known.
func effective(args []string, name string, authored *string) (value string, sure bool) {
	if value, set := property(args, name); set {
		return value, true
	}
	if authored != nil {
		value = *authored
	}
	return value, !amended(args)
}

// LogPosition is the position in the command line args, program first, at which the words of LogOption are to be put so that
// the installation writes a log; ok is false for what is no installation or has a log already. They go behind the package:
// what follows a property without a value could be taken for its value.
func LogPosition(args []string) (position int, ok bool) {
	if !Installs(args) || slices.ContainsFunc(args[1:], func(arg string) bool { return strings.HasPrefix(option(arg), "l") }) {
		return 0, false
	}
	position = 1 + slices.IndexFunc(args[1:], opensPackage)
	if o := option(args[position]); o == "i" || o == "package" {
		position++ // the package is the next argument
	}
	return min(position+1, len(args)), true
}

// LogOption makes msiexec write everything into the run's log.
func LogOption() []string { return []string{"/l*v", LogPath} }

// MachineScope returns the command line args (program first) completed so that it installs the package info for the whole
// machine, whoever runs it. What the command says itself stays: only missing properties are added, behind it, and any command
// but an installation by msiexec is returned as it is. args is never changed.
//
//   - ALLUSERS neither in the command nor authored as 1: ALLUSERS=1 is added. It is also added to a command with a transform or
//     a patch, which may take the authored one away.
//   - ALLUSERS=2 in the command: from Windows Installer 5.0 on a package authored with MSIINSTALLPERUSER=1 is then installed for
//     the user, so an empty MSIINSTALLPERUSER is added unless the command sets that property.
//   - any other ALLUSERS in the command, an empty one too, is the administrator's explicit choice.
//
// An empty property is the argument `MSIINSTALLPERUSER=`, without the quotes that a command line has there.
func MachineScope(args []string, info Info) []string {
	if !Installs(args) {
		return args
	}
	scope, set := property(args, "ALLUSERS")
	switch {
	case !set && info.AllUsers != nil && *info.AllUsers == "1" && !amended(args):
		return args
	case !set:
		return append(slices.Clone(args), "ALLUSERS=1")
	case scope == "2":
		if _, set := property(args, "MSIINSTALLPERUSER"); !set {
			return append(slices.Clone(args), "MSIINSTALLPERUSER=")
		}
	}
	return args
}

// Installs tells whether args is an installation by msiexec: /i or /package, in any case, with - or /, and with the package in
// the same argument or the next. With REINSTALL it is a repair and with REMOVE=ALL a removal instead, whose scope is that of
// the installation.
func Installs(args []string) bool {
	if len(args) == 0 {
		return false
	}
	program := args[0][strings.LastIndexAny(args[0], `\/`)+1:]
	if !strings.EqualFold(program, "msiexec") && !strings.EqualFold(program, "msiexec.exe") {
		return false
	}
	_, repairs := property(args, "REINSTALL")
	removed, _ := property(args, "REMOVE")
	return !repairs && !strings.EqualFold(removed, "ALL") && slices.ContainsFunc(args[1:], opensPackage)
}

func opensPackage(arg string) bool {
	o := option(arg)
	return strings.HasPrefix(o, "i") || strings.HasPrefix(o, "package")
}

// option is an argument without its - or /, in lower case; "" for what is no option.
func option(arg string) string {
	if arg == "" || arg[0] != '/' && arg[0] != '-' {
		return ""
	}
	return strings.ToLower(arg[1:])
}

// amended tells whether the command changes the package's authored properties.
func amended(args []string) bool {
	_, transforms := property(args, "TRANSFORMS")
	_, patch := property(args, "PATCH")
	return transforms || patch
}

// property returns the value that an msiexec command line gives a property: the last one counts, and names are taken without
// regard to case, since msiexec turns them into upper case.
func property(args []string, name string) (value string, set bool) {
	for _, arg := range slices.Backward(args[1:]) {
		if key, value, ok := strings.Cut(arg, "="); ok && strings.EqualFold(key, name) {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}
