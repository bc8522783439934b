use storage_window::HugePage;

use super::*;

const WORKED: &str = include_str!("../../../../examples/worked-example/berth.toml");
const FIG_1A: &str = include_str!("../../../../examples/fig-1a/berth.toml");
const M: u64 = 1 << 20;

fn with(partitions: &str) -> String {
    format!("[main_storage]\nsize = \"509M\"\n{partitions}")
}

fn partition(name: &str, more: &str) -> String {
    format!("[[partition]]\nname = \"{name}\"\nimage = \"minimal\"\n{more}\n")
}

fn refused(text: &str) -> String {
    HostFile::parse(text).expect_err("should be refused").to_string()
}

fn ranges(file: &HostFile) -> Vec<(u64, u64)> {
    file.partitions.iter().map(|p| (p.range.origin() / M, p.range.size() / M)).collect()
}

#[test]
fn operators_come_in_where_the_file_says() {
    let parse =
        |api: &str| HostFile::parse(&format!("[main_storage]\nsize = \"64M\"\n[api]\n{api}"));
    assert_eq!(HostFile::parse("[main_storage]\nsize = \"64M\"").unwrap().api, ApiSpec::default());
    let api = parse("listen = \"[::1]:7601\"\nnames = [\"berth.example\"]").unwrap().api;
    assert_eq!(api.listen, Some("[::1]:7601".parse().unwrap()));
    assert_eq!(api.names, ["berth.example"]);
    for (wrong, said) in [
        ("listen = \"7601\"", "line 4: listen"),
        ("certificate = \"a.crt\"", "line 4: name certificate and key"),
        ("clients = \"a\"", "line 4: name client_authorities and clients"),
        ("names = [\"a:1\"]", "line 4: names"),
        ("port = 1", "port"),
    ] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn the_worked_example_is_fig_3a() {
    let file = HostFile::parse(WORKED).unwrap();
    assert_eq!(file.main_storage, 509 * M);
    assert_eq!(ranges(&file), [(0, 128), (128, 256)]);
    assert_eq!(file.map().unwrap().gap(&"lpar2".parse().unwrap()), Some(125 * M));
    assert_eq!(file.device_wait, Duration::from_secs(10));
}

#[test]
fn fig_1a_assigns_host_cpus() {
    let file = HostFile::parse(FIG_1A).unwrap();
    let cpus: Vec<_> = file.partitions.iter().map(|p| p.cpus.clone()).collect();
    assert_eq!(
        cpus,
        [
            CpuAssignment::Exclusive(vec![0, 1]),
            CpuAssignment::Exclusive(vec![2]),
            CpuAssignment::TimeShared(vec![3]),
            CpuAssignment::TimeShared(vec![3]),
        ]
    );
    assert_eq!(file.partitions[0].vcpus, 2);
    assert!(file.check_host(&[0, 1, 2, 3]).is_ok());
    let error = file.check_host(&[0, 1]).unwrap_err().to_string();
    assert!(error.contains("no CPU 2") && error.contains("lpar2"), "{error}");
}

#[test]
fn without_an_origin_the_smallest_gap_that_fits_is_taken() {
    let text = with(
        &[
            partition("a", "size = \"10M\""),
            partition("b", "size = \"100M\"\norigin = \"20M\""),
            partition("c", "size = \"300M\""),
        ]
        .concat(),
    );
    assert_eq!(ranges(&HostFile::parse(&text).unwrap()), [(0, 10), (20, 100), (120, 300)]);
}

#[test]
fn an_overlap_names_line_neighbour_and_a_free_origin() {
    let text = with(
        &[
            partition("a", "size = \"128M\"\norigin = \"0\""),
            partition("b", "size = \"128M\"\norigin = \"64M\""),
        ]
        .concat(),
    );
    let error = refused(&text);
    for part in ["line 12", "\"b\"", "overlaps \"a\" (0 to 128M)", "origin 128M would be free"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn each_bad_value_names_its_line_cause_and_remedy() {
    let cases: &[(&str, &[&str])] = &[
        ("size = \"600M\"\norigin = \"0\"", &["line 7", "past main storage", "509M"]),
        ("size = \"600M\"", &["line 6", "no gap of 600M", "509M"]),
        ("size = \"12MB\"", &["line 6", "12MB", "128M"]),
        ("size = 4096", &["line 6", "multiple of 1M"]),
        ("size = -1", &["line 6", "positive"]),
        ("size = \"0\"", &["line 6", "at least 1M"]),
        ("size = \"1M\"\norigin = \"4096\"", &["line 7", "multiple of 1M"]),
        ("size = \"1M\"\nvcpus = 9", &["line 7", "1 to 8"]),
        ("size = \"1M\"\nvcpus = 0", &["line 7", "1 to 8"]),
        ("size = \"1M\"\nhost_cpus = [0]", &["line 7", "cpu_sharing"]),
        ("size = \"1M\"\ncpu_sharing = \"exclusive\"", &["line 7", "host_cpus"]),
        ("size = \"1M\"\nhost_cpus = []\ncpu_sharing = \"exclusive\"", &["line 7", "empty"]),
        ("size = \"1M\"\nhost_cpus = [1, 1]\ncpu_sharing = \"exclusive\"", &["twice"]),
        ("size = \"1M\"\nhost_cpus = [-1]\ncpu_sharing = \"exclusive\"", &["numbered from 0"]),
        (
            "size = \"1M\"\nvcpus = 2\nhost_cpus = [0]\ncpu_sharing = \"exclusive\"",
            &["line 7", "one host CPU for each vCPU"],
        ),
        ("size = \"1M\"\ndisk = \"1K\"", &["line 7", "multiple of 1M"]),
        ("size = \"1M\"\nio_keys = { rng = 16 }", &["line 7", "0 to 15"]),
        ("size = \"1M\"\nio_keys = { rng = -1 }", &["line 7", "0 to 15"]),
        (
            "size = \"1M\"\nio_keys = { blk1 = 3 }",
            &["line 7", "blk1", "console, agent, blk0, rng, mem"],
        ),
    ];
    for (more, parts) in cases {
        let error = refused(&with(&partition("p", more)));
        for part in *parts {
            assert!(error.contains(part), "{more}: {part} is not in: {error}");
        }
    }
}

#[test]
fn what_is_unknown_or_missing_is_shown_with_its_line() {
    for (text, part) in [
        (with(&partition("p", "size = \"1M\"\nsise = 3")), "unknown field `sise`"),
        (with("[[partition]]\nname = \"p\"\nsize = \"1M\"\n"), "missing field `image`"),
        (with(&partition("p", "size = true")), "a size"),
        (with(&partition("p", "size = \"1M\"\nengine = \"warp\"")), "warp"),
        (with(&partition("p", "size = \"1M\"\ncpu_sharing = \"maybe\"")), "maybe"),
    ] {
        let error = refused(&text);
        assert!(error.contains(part) && error.contains("line"), "{part} is not in: {error}");
    }
    assert!(refused("").contains("main_storage"));
}

#[test]
fn io_processors_have_access_keys_by_name() {
    let text = partition("p", "size = \"1M\"\ndisk = \"1M\"\nio_keys = { blk1 = 3, rng = 15 }");
    let file = HostFile::parse(&with(&text)).unwrap();
    let keys: Vec<_> = file.partitions[0]
        .io_keys
        .iter()
        .map(|(name, key)| (name.as_str(), key.number()))
        .collect();
    assert_eq!(keys, [("blk1", 3), ("rng", 15)]);
}

#[test]
fn names_are_checked_and_unique() {
    assert!(refused(&with(&partition("../x", "size = \"1M\""))).contains("not a partition name"));
    let twice = with(&[partition("p", "size = \"1M\""), partition("p", "size = \"1M\"")].concat());
    assert!(refused(&twice).contains("already"));
}

#[test]
fn an_image_name_cannot_leave_the_image_store() {
    for image in ["../../etc", "a/b", "", ".", ".."] {
        let text = with(&format!("[[partition]]\nname=\"p\"\nsize=\"1M\"\nimage=\"{image}\"\n"));
        assert!(refused(&text).contains("not an image's name"), "{image}");
    }
}

#[test]
fn an_exclusive_host_cpu_is_nobody_elses() {
    let claim = |name, sharing| {
        partition(name, &format!("size = \"1M\"\nhost_cpus = [1]\ncpu_sharing = \"{sharing}\""))
    };
    for (first, second) in
        [("exclusive", "exclusive"), ("time-shared", "exclusive"), ("exclusive", "time-shared")]
    {
        let error = refused(&with(&[claim("a", first), claim("b", second)].concat()));
        assert!(error.contains("host CPU 1 is claimed by \"a\" too"), "{error}");
    }
    let shared = with(&[claim("a", "time-shared"), claim("b", "time-shared")].concat());
    assert!(HostFile::parse(&shared).is_ok());
}

#[test]
fn somebody_who_floats_needs_a_cpu_that_nobody_owns() {
    let owner = partition("a", "size = \"1M\"\nhost_cpus = [0]\ncpu_sharing = \"exclusive\"");
    let file = HostFile::parse(&with(&[owner, partition("b", "size = \"1M\"")].concat())).unwrap();
    assert!(file.check_host(&[0, 1]).is_ok());
    assert!(file.check_host(&[0]).unwrap_err().to_string().contains("exclusively"));
}

#[test]
fn times_to_wait_have_a_unit_and_a_limit() {
    let wait = |text: &str| {
        HostFile::parse(&format!("[main_storage]\nsize=\"1M\"\n[host]\ndevice_wait=\"{text}\"\n"))
    };
    assert_eq!(wait("250ms").unwrap().device_wait, Duration::from_millis(250));
    assert_eq!(wait("2m").unwrap().device_wait, Duration::from_secs(120));
    for bad in ["10", "s", "-1s", "1.5s", "61m", "99999999999999999999s"] {
        assert!(wait(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = HostFile::parse(&text);
    }

    /// Whatever is accepted keeps the promises the daemon builds on.
    #[test]
    fn what_is_accepted_is_a_map(places in proptest::collection::vec((proptest::option::of(0u64..40), 0u64..20), 0..6)) {
        let each = places.iter().enumerate().map(|(index, (origin, size))| {
            let origin = origin.map_or(String::new(), |origin| format!("\norigin = \"{origin}M\""));
            partition(&format!("p{index}"), &format!("size = \"{size}M\"{origin}"))
        });
        let text = format!("[main_storage]\nsize = \"40M\"\n{}", each.collect::<String>());
        if let Ok(file) = HostFile::parse(&text) {
            proptest::prop_assert_eq!(file.partitions.len(), places.len());
            let map = file.map().expect("accepted");
            proptest::prop_assert!(map.partitions().iter().all(|p| p.range().end() <= 40 * M));
        }
    }
}

#[test]
fn users_files_are_bounded_and_only_where_they_are_wanted() {
    let text = |files: &str, pool: &str| {
        format!(
            "[main_storage]\nsize = \"8M\"\n{files}\n[[pool]]\nname = \"p\"\ncount = 1\n\
             size = \"4M\"\nimage = \"minimal\"\nanybody = true\n{pool}\n\
             [[pool.program]]\ntpn = \"a\"\nrun = [\"/a\"]\n"
        )
    };
    let plain = HostFile::parse(&text("", "")).unwrap();
    assert_eq!((plain.files, plain.pools[0].user_files), (FilesSpec::default(), false));
    let stated = "[files]\ndirectory = \"/srv\"\nquota = \"5M\"\nmost = 7";
    let file = HostFile::parse(&text(stated, "files = true")).unwrap();
    assert!(file.pools[0].user_files);
    assert_eq!(file.files.directory, Some("/srv".into()));
    assert_eq!(file.files.quota, file_manager::Quota { bytes: 5 << 20, files: 7 });
    for wrong in ["[files]\nquota = \"much\"", "[files]\nmost = -1", "[files]\nsize = 1"] {
        assert!(HostFile::parse(&text(wrong, "")).is_err(), "{wrong}");
    }
}

#[test]
fn main_storage_is_made_of_what_the_file_says() {
    let file = |more: &str| HostFile::parse(&format!("[main_storage]\nsize = \"8M\"\n{more}\n"));
    let backing = |more: &str| file(more).map(|file| (file.backing, file.numa_node)).unwrap();
    assert_eq!(backing(""), (Backing::Memfd, None));
    assert_eq!(backing("reserve = true"), (Backing::Reserved, None));
    assert_eq!(backing("backing = \"memfd\"\nnuma_node = 1"), (Backing::Memfd, Some(1)));
    let huge = Backing::HugePages(HugePage::M2);
    assert_eq!(backing("backing = \"hugetlb-2M\"\nreserve = true"), (huge, None));
    let dax = "backing = \"file\"\npath = \"/dev/dax0.0\"";
    assert_eq!(backing(dax), (Backing::Path("/dev/dax0.0".into()), None));
    for (wrong, why) in [
        ("backing = \"hugetlb-1G\"", "line 2: main storage of 8M is not a multiple"),
        ("backing = \"file\"", "line 2: backing = \"file\" needs a path"),
        ("backing = \"file\"\npath = \"x\"", "line 4: the path"),
        ("path = \"/x\"", "line 3: a path is for"),
        ("backing = \"hugetlb-2M\"\nreserve = false", "line 4: only memfd"),
        ("backing = \"file\"\npath = \"/x\"\nnuma_node = 0", "line 5: numa_node is for memory"),
        ("numa_node = 64", "line 3: 64 is not a NUMA node"),
        ("numa_node = -1", "line 3: -1 is not a NUMA node"),
        ("backing = \"floppy\"", "memfd"),
    ] {
        let error = file(wrong).expect_err(wrong).to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
    let odd = "[main_storage]\nsize = \"8M\"\nbacking = \"hugetlb-2M\"\n";
    let one = |more: &str| HostFile::parse(&format!("{odd}{}", partition("a", more)));
    for (more, why) in [
        ("size = \"3M\"", "line 7: partition \"a\": size 3M is not a multiple of 2M"),
        ("size = \"2M\"\norigin = \"1M\"", "units of 2M"),
    ] {
        let error = one(more).expect_err(more).to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(one("size = \"4M\"").is_ok());
}

#[test]
fn users_databases_are_where_the_file_says() {
    let text = |database: &str, pool: &str| {
        format!(
            "[main_storage]\nsize = \"8M\"\n{database}\n[[pool]]\nname = \"p\"\ncount = 1\n\
             size = \"4M\"\nimage = \"minimal\"\nanybody = true\n{pool}\n[[pool.program]]\n\
             tpn = \"T\"\nrun = [\"/bin/sh\"]\n"
        )
    };
    let plain = HostFile::parse(&text("", "")).unwrap();
    assert_eq!((plain.database, plain.pools[0].user_database), (None, false));
    let stated = "[database]\nserver = \"db.example\"\nauthority = \"ca.pem\"";
    let file = HostFile::parse(&text(stated, "database = true")).unwrap();
    let server = file.database.unwrap();
    assert_eq!(server.address.to_string(), "db.example:5432");
    assert_eq!((server.authority, server.credentials), (Some("ca.pem".into()), None));
    assert!(HostFile::parse(&text("", "files = true\ndatabase = true")).is_ok());
    for (database, pool, said) in [
        ("", "database = true", "files = true"),
        ("[database]\nserver = \"db.example\"", "", "authority"),
        ("[database]\nserver = \"no server\"", "", "is no server"),
        ("[database]", "", "server"),
        ("[database]\nserver = \"/run\"\npassword = \"x\"", "", "password"),
    ] {
        let error = refused(&text(database, pool));
        assert!(error.contains(said), "{database} {pool}: {error}");
    }
}
