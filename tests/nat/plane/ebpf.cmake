# Loading needs root; says so and skips where it cannot have that.
sallyport_test(ebpf_tables_test LINK sallyport_plane_ebpf)
if(TARGET ebpf_tables_test)
  target_link_libraries(ebpf_tables_test PRIVATE PkgConfig::LIBBPF)
endif()
sallyport_test(ebpf_programs_test LINK sallyport_plane_ebpf)
if(TARGET ebpf_programs_test)
  target_link_libraries(ebpf_programs_test PRIVATE sallyport_plane_memory PkgConfig::LIBBPF)
endif()
