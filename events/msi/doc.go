// Package msi says what a Windows Installer package is and completes the command that installs it.
//
// Read decodes the Property table and the platform of a package from its bytes, in pure Go on every operating system, so
// that a package is understood where it is published and not only where it is installed. MachineScope completes the command
// of an administrative program: under LocalSystem a package that is not told otherwise installs itself into that account's
// own profile, succeeds, and no user ever sees it.
//
// The package does no I/O of its own and never runs anything. A file that is truncated, hostile or not an installation
// package is an error; memory and time are bounded by the limits below, never by a length that the file states.
package msi
