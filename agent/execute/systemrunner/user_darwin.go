package systemrunner

const (
	standardPath     = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
	standardLanguage = "en_US.UTF-8" // older releases have no C.UTF-8
)
