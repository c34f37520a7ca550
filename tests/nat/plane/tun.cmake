# Needs root, network namespaces and /dev/net/tun; says so and skips where it cannot have them.
add_library(sallyport_tun_lab STATIC tun_lab.cpp)
target_link_libraries(sallyport_tun_lab PUBLIC sallyport_values)
sallyport_test(tun_plane_test LINK sallyport_plane_tun sallyport_tun_lab)
sallyport_test(tun_ipv6_test LINK sallyport_plane_tun sallyport_tun_lab)
sallyport_test(tun_steering_test LINK sallyport_plane_tun)
sallyport_test(tun_table_test LINK sallyport_plane_tun sallyport_tun_lab)
sallyport_test(batch_writer_test LINK sallyport_plane_tun)
