package msi

import (
	"fmt"
	"strings"
)

// PackCode writes a product code, a GUID in braces, as the names of registry keys have it: 32 digits in upper case without
// punctuation, the first three groups backwards and the two digits of every later byte swapped.
func PackCode(code string) (string, error) {
	if !guid.MatchString(code) {
		return "", fmt.Errorf("%.64q is not a product code", code)
	}
	digits := []byte(strings.ToUpper(strings.NewReplacer("{", "", "}", "", "-", "").Replace(code)))
	return string(swapped(digits)), nil
}

// swapped turns 32 digits round within their groups; twice gives them back.
func swapped(digits []byte) []byte {
	out := make([]byte, 0, len(digits))
	for _, size := range []int{8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2} {
		for i := size - 1; i >= 0; i-- {
			out = append(out, digits[i])
		}
		digits = digits[size:]
	}
	return out
}

// CodeText says in a few words what msiexec means by an exit code that it does not share with everybody (domain-facts §3.2);
// "" for others, 0 among them.
func CodeText(code int) string { return codeTexts[code] }

var codeTexts = map[int]string{
	1601: "the Windows Installer service cannot be reached",
	1602: "somebody cancelled the installation",
	1603: "the installation failed and was rolled back; its log has the first error",
	1604: "the installation is suspended until the machine restarts",
	1605: "the product is not installed in this context",
	1606: "the package has no such feature",
	1607: "the package has no such component",
	1608: "the package does not know that property",
	1609: "the installation was in an invalid state",
	1610: "Windows Installer's records of the product are damaged",
	1612: "the source of the product cannot be found or read",
	1613: "this Windows Installer is too old for the package",
	1614: "the product is already removed",
	1618: "another installation is running",
	1619: "the package cannot be opened: it is missing, or the account may not read it",
	1620: "the package is damaged or not an installation package",
	1621: "the installer's user interface cannot start",
	1622: "the log file cannot be written",
	1623: "the package's language is not supported by this system",
	1624: "a transform is missing or does not fit the package",
	1625: "a policy of this machine forbids the installation",
	1627: "Windows Installer failed while it worked on the package",
	1628: "the package refers to a table that it does not have",
	1629: "the package has data of a wrong kind",
	1631: "the Windows Installer service failed to start",
	1632: "the folder for temporary files is missing, full, or may not be written to",
	1633: "the package is not for this processor or this edition of Windows",
	1634: "the component is not used on this machine",
	1635: "the patch cannot be opened",
	1636: "the patch is damaged or not a patch",
	1637: "this Windows Installer is too old for the patch",
	1638: "another version of the product is installed",
	1639: "msiexec does not understand the command line",
	1640: "installations from a remote desktop are not allowed",
	1641: "it succeeded, and the machine restarts",
	1642: "the patch is for another version, or for a product that is not installed",
	1643: "a policy of this machine forbids the patch",
	1644: "a policy of this machine forbids a transform",
	1645: "installations from a remote desktop are not allowed by policy",
	1648: "the patches do not fit together",
	1651: "the account must be an administrator to patch a managed product",
	1654: "the package may not be installed on this edition of Windows",
	1707: "it succeeded",
	3010: "it succeeded, and a restart completes it",
	3011: "it succeeded, and a restart completes it",
}
