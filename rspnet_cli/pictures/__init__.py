"""Pictures that commands write: lettering, layout, colours, PNG and MP4 files, without a library for any of them but PyAV."""
