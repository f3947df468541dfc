package enrol

import "golang.org/x/sys/windows"

// closed gives the owner, administrators and the system full control of a directory and all that is made in
// it, and nobody else anything: below ProgramData every user reads what is not closed.
const closed = "D:PAI(A;OICI;FA;;;OW)(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"

func closeToOthers(dir string) error {
	sd, err := windows.SecurityDescriptorFromString(closed)
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}
