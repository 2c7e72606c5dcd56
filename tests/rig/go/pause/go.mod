module mcdoctor.dev/rig/pause

go 1.21
