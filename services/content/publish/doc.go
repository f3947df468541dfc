// Package publish reads a package from the administrator's disk and sends it to the content service.
//
// Read takes a directory with a package.yaml, or one .deb, .rpm, .msi or script file whose programs it
// infers, and returns a Plan: the signed manifest with the digest of every file, and what is to be uploaded. Files on
// external sources, which package.yaml names by address, are read and pinned alike, as the administrator, and not
// uploaded. It finds every mistake that can be found without a server and names file and line; what the package depends on and
// removes is looked for where somebody can be asked. Reading changes nothing; equal files, an equal time and equal keys give an
// equal manifest.
//
// Upload sends what the server lacks and publishes. It may be cut off at any point and called again: blobs
// that arrived are not sent twice, and until the last request nothing is published.
//
// # What became of the original's programs
//
// Every property that the original's programs have (domain-facts §1.2), and what says it in package.yaml:
//
//	Command line                  command: a list, or one line; the package's directory, then the machine's path
//	Start in                      working-directory, below the package's directory, which is the default
//	Run (the window)              window, of interactive programs on Windows
//	After running                 after
//	Category                      category, of the package
//	Comment                       comment, of the package and of each program
//	Estimated disk space          disk-space: asked of the machine before the start, where it was only told to users
//	Maximum allowed run time      max-run-time: 120 minutes where nothing is said; there is no unknown
//	Platforms                     platforms
//	Program can run               logon
//	Run mode                      run, which has no default
//	Allow users to interact       interactive
//	Run another program first     run-first: several, in their order
//	Always run it first           always-run-first
//	When assigned to a computer   every-user
//	Windows Installer             read from the .msi: product code, detection, msi-scope; whoever repairs brings the content
//
// What is not kept, and why:
//
//	Additional requirements       text that no machine can check: applies-if is for machines, comment for people
//	Drive mode, reconnect         a program runs in its content's directory or reads the addresses under references;
//	  at logon                    letters belong to a session, where programs of administrators never saw them
//	Suppress notifications        agents show none
//	Disable program               what is signed never changes: a deployment is paused or stopped, a fleet frozen
//	Allow from a task sequence    there are no task sequences: run-first and phases do that
//	MOM alerts                    metrics tell of every job: an alert is a rule over them
//	Remove when no longer         a removal is deliberate: a deployment of the program that undoes, or a rollback
//	  advertised
//	MIF matching                  return-codes and detect decide; a file in a temporary folder proves nothing
//
// Dependencies are bound when the order is signed (package closure). Supersedence, which the original has for applications
// only, is supersedes, of the package; removal and repair are programs that say undoes or repairs.
package publish
