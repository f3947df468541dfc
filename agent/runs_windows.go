package agent

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// passableRuns closes a directory and what is made in it to everybody but the agent, administrators and the system; users
// pass through it to what is given to them (execute), and list nothing. Below ProgramData they could otherwise make files
// beside those of a supervisor, before it makes its own.
const passableRuns = "D:PAI(A;OICI;FA;;;OW)(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;0x1000a0;;;BU)"

// makeRuns leaves what is not passable to the state directory around it, which is closed.
func makeRuns(root string, passable bool) error {
	if !passable {
		return os.MkdirAll(root, 0o700)
	}
	sd, err := windows.SecurityDescriptorFromString(passableRuns)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(root)
	if err != nil {
		return err
	}
	attributes := windows.SecurityAttributes{SecurityDescriptor: sd}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	err = windows.CreateDirectory(name, &attributes) // closed from its first moment
	if !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return err
	}
	if info, err := os.Lstat(root); err != nil || !info.IsDir() {
		return errors.Join(fmt.Errorf("%s is not a directory", root), err)
	}
	if err := checkOwner(root); err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(root, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}

// checkOwner refuses a directory that somebody else made first: its owner may always open it again.
func checkOwner(dir string) error {
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("find owner of %s: %w", dir, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("find owner of %s: %w", dir, err)
	}
	own, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("find own user: %w", err)
	}
	if owner.IsWellKnown(windows.WinLocalSystemSid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.Equals(own.User.Sid) {
		return nil
	}
	return fmt.Errorf("%s is not a directory of the agent's own: it belongs to %s", dir, owner)
}
