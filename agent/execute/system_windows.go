package execute

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

const usualExtensions = ".COM;.EXE;.BAT;.CMD"

func splitLine(line string) ([]string, error) { return splitWindows(line) }

// verbatimLine is the line with the program's name replaced by the path that was found for it.
func verbatimLine(path, line string) string {
	_, rest, err := cutProgram(strings.TrimLeft(line, windowsBlanks))
	if err != nil {
		return "" // splitLine has refused it
	}
	return `"` + path + `"` + rest
}

func isPath(name string) bool { return strings.ContainsAny(name, `/\:`) }

// candidates adds the extensions of programs to a name without one.
func candidates(path string, env []string) []string {
	names := []string{path}
	if filepath.Ext(path) != "" {
		return names
	}
	extensions := lookupEnv(env, "PATHEXT")
	if extensions == "" {
		extensions = usualExtensions
	}
	names = nil // a file without extension is no program
	for extension := range strings.SplitSeq(extensions, ";") {
		names = append(names, path+extension)
	}
	return names
}

func executable(fs.FileInfo) bool { return true }

func foldName(name string) string { return strings.ToUpper(name) }

func temporaryNames() []string { return []string{"TEMP", "TMP"} }

func shellProgram(shell string, env []string) string {
	system := filepath.Join(lookupEnv(env, "SystemRoot"), "System32")
	switch shell {
	case Cmd:
		return filepath.Join(system, "cmd.exe")
	case PowerShell:
		return filepath.Join(system, "WindowsPowerShell", "v1.0", "powershell.exe")
	}
	return shell
}

// giveDirectories gives a user what is his of a run that is otherwise closed: the directory for temporary files, and the
// content to read, or to change.
func giveDirectories(user, temporary, content string, writable bool) error {
	sid, _, _, err := windows.LookupSID("", user)
	if err != nil {
		return fmt.Errorf("find user %s: %w", user, err)
	}
	const change, read = "0x1301bf", "0x1200a9"
	if err := giveDirectory(temporary, sid, change); err != nil || content == "" {
		return err
	}
	if writable {
		return giveDirectory(content, sid, change)
	}
	return giveDirectory(content, sid, read)
}

func giveDirectory(dir string, to *windows.SID, rights string) error {
	sd, err := windows.SecurityDescriptorFromString("D:PAI(A;OICI;FA;;;OW)(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;OICI;" + rights + ";;;" + to.String() + ")")
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	if err := windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil); err != nil {
		return fmt.Errorf("give %s: %w", dir, err)
	}
	return nil
}

// saysDenied knows ERROR_ACCESS_DENIED.
func saysDenied(code int) bool { return code == 5 }
