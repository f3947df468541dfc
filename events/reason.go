package events

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"time"
)

// Reason says in one word why a job is where it is. On the wire it is always one of these, never a
// message to parse; the words for people are in the explanation beside it.
type Reason string

// Class says what is done about a failure.
type Class string

// The classes of failure.
const (
	Permanent Class = "permanent" // trying again would fail again: nothing is done
	Transient Class = "transient" // network, content, disk: tried again with growing pauses
	Busy      Class = "busy"      // another installer runs: tried again at the original's pace (2 h, ten times)
)

// The reasons, grouped by the stage that gives them.
const (
	// verify
	OrderUnavailable  Reason = "order_unavailable"
	OrderUnsigned     Reason = "order_unsigned"
	OrderUnknownKey   Reason = "order_unknown_key"
	OrderRevokedKey   Reason = "order_revoked_key"
	OrderAltered      Reason = "order_altered"
	OrderMalformed    Reason = "order_malformed"
	OrderExpired      Reason = "order_expired"
	OrderNotYetValid  Reason = "order_not_yet_valid"
	OrderSerialOld    Reason = "order_serial_old"
	OrderOtherFleet   Reason = "order_other_fleet"
	NotTargeted       Reason = "not_targeted"
	ManifestMismatch  Reason = "manifest_mismatch"
	ManifestUnsigned  Reason = "manifest_unsigned"
	UnsupportedFormat Reason = "unsupported_format"
	// decide
	PlatformUnsupported Reason = "platform_unsupported"
	RequirementsNotMet  Reason = "requirements_not_met"
	RequirementsUnknown Reason = "requirements_unknown"
	DeploymentExpired   Reason = "deployment_expired"
	AlreadyRan          Reason = "already_ran"
	AlreadyInstalled    Reason = "already_installed"
	DeploymentStopped   Reason = "deployment_stopped"
	ContextUnsupported  Reason = "context_unsupported"
	Superseded          Reason = "superseded"
	NothingToRollBack   Reason = "nothing_to_roll_back"
	WindowNeverFits     Reason = "maintenance_window_never_fits"
	DiskSpaceMissing    Reason = "disk_space_missing"
	DependencyFailed    Reason = "dependency_failed"
	OccurrenceUnknown   Reason = "occurrence_unknown"
	// fetch
	ContentMismatch    Reason = "content_mismatch"
	ContentUnavailable Reason = "content_unavailable"
	SourceUnreachable  Reason = "source_unreachable"
	SourceNotFound     Reason = "source_not_found"
	SourceUnsupported  Reason = "source_unsupported"
	CacheTooSmall      Reason = "cache_too_small"
	DiskFull           Reason = "disk_full"
	ContentChanged     Reason = "content_changed"
	ReferenceUnpinned  Reason = "reference_unpinned"
	// authorise
	NoNetworkIdentity           Reason = "no_network_identity"
	NetworkAccessAccountMissing Reason = "network_access_account_missing"
	CredentialDenied            Reason = "credential_denied"
	CredentialUnavailable       Reason = "credential_unavailable"
	CredentialRejected          Reason = "credential_rejected"
	NetworkAccessDenied         Reason = "network_access_denied"
	NetworkMountImpossible      Reason = "network_mount_impossible"
	// run
	CommandNotFound      Reason = "command_not_found"
	CommandNotExecutable Reason = "command_not_executable"
	BadWorkingDirectory  Reason = "bad_working_directory"
	CouldNotStart        Reason = "could_not_start"
	UserLacksRights      Reason = "user_lacks_rights"
	UserLoggedOff        Reason = "user_logged_off"
	HomeMissing          Reason = "home_missing"
	AccountUnusable      Reason = "account_unusable"
	AccountRefused       Reason = "account_refused"
	ElevationImpossible  Reason = "elevation_impossible"
	ExitCode             Reason = "exit_code"
	KilledBySignal       Reason = "killed_by_signal"
	RunTimeExceeded      Reason = "run_time_exceeded"
	InstallerBusy        Reason = "installer_busy"
	OutcomeUnknown       Reason = "outcome_unknown"
	RebootRequired       Reason = "reboot_required"
	RestartImpossible    Reason = "restart_impossible"
	// detect
	NotDetected           Reason = "not_detected"
	DetectionUnknown      Reason = "detection_unknown"
	InstalledForWrongUser Reason = "installed_for_wrong_user"
	// execution's own, about agents that say nothing
	AgentSilent Reason = "agent_silent"
	AgentFault  Reason = "agent_fault"
	OtherReason Reason = "other"
	NoReason    Reason = ""
)

// ReasonInfo is what is known about a reason without looking at the job.
type ReasonInfo struct {
	Class  Class
	Advice string // what an administrator does next
}

var reasons = map[Reason]ReasonInfo{
	OrderUnavailable:  {Transient, "the agent could not fetch the signed order: look whether execution runs and holds it (chandler doctor)"},
	OrderUnsigned:     {Permanent, "the order carries too few valid signatures: sign the deployment with a key the agents trust"},
	OrderUnknownKey:   {Permanent, "the order is signed by a key the agent does not trust: compare `chandler-agent status` with the key used"},
	OrderRevokedKey:   {Permanent, "the order is signed by a key that the trust bundle revokes: sign the deployment again with another"},
	OrderAltered:      {Permanent, "the order is not the one that was signed: look for who changed it; create the deployment again"},
	OrderMalformed:    {Permanent, "the order cannot be read: the agent may be older than the administrator's chandler"},
	OrderExpired:      {Permanent, "the order's validity has ended: create the deployment again"},
	OrderNotYetValid:  {Transient, "the order is not valid yet by the agent's clock: check the clock"},
	OrderSerialOld:    {Permanent, "the agent has seen a newer revision of this deployment: an old order was sent again"},
	OrderOtherFleet:   {Permanent, "the order is signed for another fleet"},
	NotTargeted:       {Permanent, "the machine is not in the signed target: `chandler why` shows the clause and the fact"},
	ManifestMismatch:  {Permanent, "the package manifest is not the one that was signed: publish and deploy again"},
	ManifestUnsigned:  {Permanent, "the package is not signed by a publisher that the agents trust: publish it again with a publisher's key (chandler trust show)"},
	UnsupportedFormat: {Permanent, "the agent is older than this order: update the agent"},

	PlatformUnsupported: {Permanent, "the program does not apply to this platform"},
	RequirementsNotMet:  {Permanent, "the program's applies-if is false on this machine: `chandler why` shows the facts"},
	RequirementsUnknown: {Permanent, "the program's applies-if cannot be evaluated on this machine: test it with `chandler collection preview`"},
	DeploymentExpired:   {Permanent, "the deployment expired before the program started"},
	AlreadyRan:          {Permanent, "the program ran here before and rerun says not to run it again"},
	AlreadyInstalled:    {Permanent, "detection found the product before the run; nothing was to be done"},
	DeploymentStopped:   {Permanent, "the deployment was stopped by an administrator"},
	Superseded:          {Permanent, "the machine has a newer version, which supersedes this one: roll that one back first, if this one is meant"},
	NothingToRollBack:   {Permanent, "the program that is to be taken back never ran on the machine: nothing was to be done"},
	WindowNeverFits:     {Permanent, "no maintenance window of the machine is ever as long as the program's max-run-time: widen the window (`chandler collection windows`), lower max-run-time, or deploy with ignore-windows"},
	DiskSpaceMissing:    {Transient, "the machine has less free disk space than the program asks for: free some; it is tried again"},
	DependencyFailed:    {Permanent, "a program that must run first failed: the explanation says which, and why"},
	OccurrenceUnknown:   {Permanent, "the agent never opened this occurrence: its journal was lost, or somebody else named it; it opens the next one by itself"},
	ContextUnsupported:  {Permanent, "this agent cannot run programs in the context asked for"},

	ContentMismatch:    {Transient, "bytes did not match the signed manifest: check the distribution point (its store, proxies on the way)"},
	ContentUnavailable: {Transient, "no distribution point has the content: `chandler package show` lists where it is"},
	SourceUnreachable:  {Transient, "the source did not answer: check network and name resolution on the machine"},
	SourceNotFound:     {Permanent, "the source has no such file: check the path"},
	SourceUnsupported:  {Permanent, "this agent has no reader for such a source"},
	ReferenceUnpinned:  {Permanent, "the fleet's trust bundle forbids references without a sha256: name it in the package, or put the files on distribution points"},
	ContentChanged:     {Permanent, "the file at the source is not the one that was pinned when the package was published: put the right one back, or publish the package again"},
	CacheTooSmall:      {Permanent, "the package is larger than the agent's cache may grow: raise cache-size"},
	DiskFull:           {Transient, "the disk is full: free space on the machine"},

	NoNetworkIdentity:           {Permanent, "the account that runs the program has no identity on the network: give an installation account"},
	NetworkAccessAccountMissing: {Permanent, "no network access account may reach the resource: `chandler account set NAME --kind network-access --user USER --resource RESOURCE` makes one"},
	CredentialUnavailable:       {Transient, "the credential service was not heard: `chandler doctor` shows whether it runs"},
	CredentialDenied:            {Permanent, "the credential service did not lend the account: the explanation says why; mend that, then `chandler deployment retry`"},
	CredentialRejected:          {Permanent, "the resource refused the account: set its secret again"},
	NetworkAccessDenied:         {Permanent, "the account may not read the resource: grant it read"},
	NetworkMountImpossible:      {Permanent, "the machine cannot offer the program its references: the explanation says what it lacks (/dev/fuse, the right to mount)"},

	CommandNotFound:      {Permanent, "the command is neither in the package nor in PATH: check the program's command"},
	CommandNotExecutable: {Permanent, "the command is not executable: check its mode, its first line, and its architecture"},
	BadWorkingDirectory:  {Permanent, "the working directory does not exist: check working-directory"},
	CouldNotStart:        {Permanent, "the operating system refused to start the program: the answer is in the explanation"},
	UserLacksRights:      {Permanent, "the user may not do this: deploy the program with run: administrative"},
	UserLoggedOff:        {Permanent, "the user logged off while the program ran, which ended it: `chandler deployment retry` runs it at the next logon"},
	HomeMissing:          {Permanent, "the user has no home directory on this machine: make it, or deploy the program with run: administrative"},
	AccountUnusable:      {Permanent, "the account that is to run the program is missing, disabled, or was changed: the explanation says which; mend the account"},
	AccountRefused:       {Permanent, "the account must not run programs: it must be an ordinary user, and in the fleet of kind software-installation; `chandler account set` names another user, the package's installation-account another account"},
	ElevationImpossible:  {Permanent, "the account cannot be given rights for the run: the explanation says what this machine lacks (sudo, useradd) or who could change what would run"},
	RestartImpossible:    {Permanent, "the machine did not restart: restart it by hand, then `chandler deployment retry`"},
	ExitCode:             {Permanent, "the program said it failed: read its output (chandler job logs)"},
	KilledBySignal:       {Permanent, "something ended the program from outside"},
	RunTimeExceeded:      {Permanent, "the program ran longer than max-run-time: raise it, or find what it waits for"},
	InstallerBusy:        {Busy, "another installation was running; it is tried again"},
	OutcomeUnknown:       {Permanent, "the program was started but nobody saw it end (power loss?): look at the machine, then `chandler deployment retry`"},
	RebootRequired:       {Permanent, "the machine must restart to finish"},

	NotDetected:           {Permanent, "the program said it succeeded, but detection does not find the product"},
	DetectionUnknown:      {Permanent, "detection could not tell: check the detection rule on the machine"},
	InstalledForWrongUser: {Permanent, "the product ended in the profile of the account that ran the installer, where no user sees it: publish with msi-scope: machine, or deploy with run: user"},

	AgentSilent: {Permanent, "the agent said nothing since the offer: `chandler agent show` tells when it was last heard"},
	AgentFault:  {Transient, "the agent itself failed: read its log"},
	OtherReason: {Permanent, "a reason this version does not know"},
}

// Info describes a reason; an unknown one is described as "other".
func (r Reason) Info() ReasonInfo {
	if info, ok := reasons[r]; ok {
		return info
	}
	return reasons[OtherReason]
}

// Known says whether this version declares the reason.
func (r Reason) Known() bool { _, ok := reasons[r]; return ok || r == NoReason }

// Reasons lists every declared reason, in no order.
func Reasons() []Reason {
	all := make([]Reason, 0, len(reasons))
	for r := range reasons {
		all = append(all, r)
	}
	return all
}

// Retry is how a class of failure is tried again: up to Attempts runs in all, First after the first
// failure, each further pause Factor times longer, none above Most.
type Retry struct {
	Attempts    int
	First, Most time.Duration
	Factor      float64
}

// Retry of a class. Busy follows the original: every 2 hours, ten times (domain-facts §3.2).
func (c Class) Retry() Retry {
	switch c {
	case Transient:
		return Retry{Attempts: 5, First: time.Minute, Most: time.Hour, Factor: 4}
	case Busy:
		return Retry{Attempts: 11, First: 2 * time.Hour, Most: 2 * time.Hour, Factor: 1}
	default:
		return Retry{Attempts: 1}
	}
}

// PauseFor is [Retry.Pause] as one job keeps it: jittered, so that the many jobs that failed for one reason come again one
// after the other. Execution and the job's agent derive the same.
func (r Retry) PauseFor(attempt int, job string) (pause time.Duration, ok bool) {
	pause, ok = r.Pause(attempt)
	return Jittered(pause, job+" "+strconv.Itoa(attempt)), ok
}

// Jittered is a duration made longer or shorter by at most a fifth. By how much depends on the seed alone.
func Jittered(d time.Duration, seed string) time.Duration {
	sum := sha256.Sum256([]byte(seed))
	part := float64(binary.BigEndian.Uint32(sum[:4])) / (1 << 32) // in [0, 1)
	return d + time.Duration(float64(d)*(0.4*part-0.2))
}

// Pause before the attempt after the given one (counted from 1); ok is false when there is none.
func (r Retry) Pause(attempt int) (pause time.Duration, ok bool) {
	if attempt >= r.Attempts {
		return 0, false
	}
	p := float64(r.First)
	for range attempt - 1 {
		p *= r.Factor
	}
	return min(time.Duration(p), r.Most), true
}
